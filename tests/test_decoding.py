"""A predictor going on by itself, and long streams read in windows, against plain Python."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks import fitting
from benchmarks.decoding import Decoding, constant_answer, decode, prompt_lengths, sample
from benchmarks.evaluation import Problem, evaluate
from benchmarks.fitting import FitConfig
from benchmarks.metrics import accuracy, cross_entropy, squared_error
from benchmarks.sequence_metrics import exact_match
from models import registry
from models.contract import ParameterCounts, Predictor, State
from models.sequences import Binary, Classes, Real, RealInput, SequenceBatch, TokenInput, valid_steps

CPU = torch.device("cpu")
V = 7


class Fixed(Predictor):
    """The least predictor; it notes what it was called with."""

    causal = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, State | None]] = []

    def initial_state(self, batch_size: int) -> State:
        return (torch.zeros(batch_size),)

    def state_bytes(self, t: int) -> int:
        return 4

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(sum(p.numel() for p in self.parameters()))


class RunningSum(Fixed):
    """Says, for sure, the sum of all symbols so far modulo V, plus one."""

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        assert not torch.is_grad_enabled() and not self.training
        self.calls.append((inputs, state))
        (before,) = self.initial_state(len(inputs)) if state is None else state
        lengths = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
        totals = before[:, None] + (inputs * valid_steps(lengths, inputs.shape[1])).cumsum(1)  # (B, T)
        return nn.functional.one_hot((totals.long() + 1) % V, V).float(), (totals[:, -1],)


class Constant(Fixed):
    """Always the same logits."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return self.logits.expand(*inputs.shape[:2], -1), self.initial_state(len(inputs))


def questions(prompts: list[list[int]], n_after: int = 3, junk: int = 5) -> SequenceBatch:
    """Prompts, scored from their last step on, over n_after further steps of junk."""
    lengths = torch.tensor([len(prompt) + n_after for prompt in prompts])
    inputs = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.int64)
    scored = valid_steps(lengths, inputs.shape[1])
    for row, prompt in enumerate(prompts):
        inputs[row, : len(prompt)] = torch.tensor(prompt)
        inputs[row, len(prompt) : len(prompt) + n_after] = junk
        scored[row, : len(prompt) - 1] = False
    return SequenceBatch(inputs, inputs.clone(), lengths, scored)


def by_hand(prompt: list[int], stop: int, max_steps: int) -> list[int]:
    """What `RunningSum` says."""
    said: list[int] = []
    while len(said) < max_steps:
        symbol = (sum(prompt) + sum(said) + 1) % V
        if symbol == stop:
            break
        said.append(symbol)
    return said


prompts = st.lists(st.lists(st.integers(0, V - 1), min_size=1, max_size=6), min_size=1, max_size=5)


@settings(deadline=None)
@given(prompts, st.integers(0, V - 1), st.integers(1, 9))
def test_answers_follow_from_the_prompt_and_themselves_until_the_stop(
    rows: list[list[int]], stop: int, max_steps: int
) -> None:
    answers = decode(RunningSum(), questions(rows), Decoding(stop, max_steps))
    expected = [by_hand(row, stop, max_steps) for row in rows]
    longest = max(1, *map(len, expected), 0)
    assert answers.tolist() == [row + [-1] * (longest - len(row)) for row in expected]


def test_a_prompt_ends_at_the_first_scored_step_and_nothing_after_it_is_seen() -> None:
    rows = [[1, 2, 3], [4], [5, 6]]
    assert prompt_lengths(questions(rows)).tolist() == [3, 1, 2]
    answers = [decode(RunningSum(), questions(rows, n, junk), Decoding(0, 6)).tolist() for n, junk in ((3, 5), (1, 2))]
    assert answers[0] == answers[1]


def test_decoding_ends_once_all_answers_have() -> None:
    predictor = RunningSum()
    decode(predictor, questions([[1, 1], [1, 1]]), Decoding(stop=3, max_steps=50))  # 1 + 1 + 1 is the stop
    assert len(predictor.calls) == 1


def test_an_empty_answer_is_a_row_of_padding() -> None:
    assert decode(RunningSum(), questions([[2]]), Decoding(stop=3, max_steps=4)).tolist() == [[-1]]


def test_a_predictor_is_left_in_the_mode_it_was_in() -> None:
    for training in (True, False):
        predictor = RunningSum().train(training)
        decode(predictor, questions([[2], [3]]), Decoding(0, 3))
        assert predictor.training is training


@pytest.mark.parametrize(("logits", "stop"), [([0.0, 2.0, 1.0], 1), ([0.0, 2.0, 1.0], 0)])
def test_the_answer_of_a_constant_is_known_without_decoding(logits: list[float], stop: int) -> None:
    decoding = Decoding(stop, 4)
    answers = decode(Constant(logits), questions([[1], [2, 2]]), decoding)
    assert torch.equal(answers, constant_answer(torch.tensor(logits), 2, decoding))


@pytest.mark.parametrize("name", ["lstm", "deep_gru", "transformer", "tcn", "lru", "gru_attention", "hopfield"])
def test_decoding_step_by_step_is_running_the_model_on_all_it_said_so_far(name: str) -> None:
    entry = registry.entry(name)
    config = dataclasses.replace(entry.config, **{str(entry.width): 8})
    target = Classes(V, future=True)
    predictor = registry.build(entry, TokenInput(V, max_length=20), target, True, config, seed=3).double().eval()
    rows, decoding = [[1, 2, 3, 4, 5], [6], [2, 1]], Decoding(stop=0, max_steps=8)
    answers = decode(predictor, questions(rows), decoding)
    for prompt, answer in zip(rows, answers.tolist(), strict=True):
        said: list[int] = []
        with torch.no_grad():
            while len(said) < decoding.max_steps:
                symbol = int(predictor(torch.tensor([prompt + said]))[0][0, -1].argmax())
                if symbol == decoding.stop:
                    break
                said.append(symbol)
        assert [symbol for symbol in answer if symbol >= 0] == said


def test_evaluation_judges_what_is_decoded_and_refuses_without_an_end() -> None:
    rows = [[1, 2], [1], [5, 5, 5]]
    decoding = Decoding(stop=1, max_steps=6)
    true = [by_hand(row, 1, 6) for row in rows]
    assert true == [[4], [2, 4], [2, 4]]
    pairs = [(row, [*answer, 1]) for row, answer in zip(rows, true, strict=True)]
    lengths = torch.tensor([len(row) + len(answer) - 1 for row, answer in pairs])
    longest = int(lengths.max())
    inputs, targets = torch.zeros(2, 3, longest, dtype=torch.int64)
    scored = valid_steps(lengths, longest)
    for i, (row, answer) in enumerate(pairs):
        stream = row + answer
        inputs[i, : len(stream) - 1], targets[i, : len(stream) - 1] = (
            torch.tensor(stream[:-1]),
            torch.tensor(stream[1:]),
        )
        scored[i, : len(row) - 1] = False
    split = SequenceBatch(inputs, targets, lengths, scored)
    problem = Problem(Classes(V, future=True), (exact_match(1), accuracy), decoding=decoding)
    assert evaluate(RunningSum(), problem, split, CPU).values == {"exact_match": 1.0, "accuracy": 1.0}
    split.targets[0, len(rows[0]) - 1] += 1
    assert evaluate(RunningSum(), problem, split, CPU).values["exact_match"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="exact_match judges decoded answers"):
        evaluate(RunningSum(), dataclasses.replace(problem, decoding=None), split, CPU)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_draws_the_same_text_and_another_another() -> None:
    target, prompt = Classes(3, future=True), torch.zeros(2, 4, dtype=torch.int64)
    draw = [sample(Constant([0.0, 1.0, 2.0]), target, prompt, 20, generator(seed)) for seed in (0, 0, 1)]
    assert draw[0].shape == (2, 20) and draw[0].dtype == torch.int64
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


def test_symbols_are_drawn_as_often_as_their_probabilities_at_the_temperature_say() -> None:
    logits, prompt = [0.0, 1.0, 2.0], torch.zeros(200, 1, dtype=torch.int64)
    for temperature in (1.0, 0.5):
        drawn = sample(Constant(logits), Classes(3, future=True), prompt, 100, generator(), temperature)
        expected = (torch.tensor(logits) / temperature).softmax(0)
        shares = torch.bincount(drawn.flatten(), minlength=3) / drawn.numel()  # standard error at most 0.0035
        torch.testing.assert_close(shares, expected, atol=0.015, rtol=0)


def test_a_sample_of_a_sure_predictor_is_its_decoding() -> None:
    batch = questions([[1, 2, 3], [3, 4, 5]])
    drawn = sample(RunningSum(), Classes(V, future=True), batch.inputs[:, :3], 6, generator(), temperature=0.01)
    answers = decode(RunningSum(), batch, Decoding(stop=V, max_steps=6))  # a stop that never comes
    assert torch.equal(drawn, answers)


def test_frames_are_drawn_key_by_key() -> None:
    logits = [-3.0, 0.0, 3.0]
    drawn = sample(Constant(logits), Binary(3, future=True), torch.zeros(100, 2, 3), 50, generator())
    assert drawn.shape == (100, 50, 3) and set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean((0, 1)), torch.tensor(logits).sigmoid(), atol=0.03, rtol=0)


@pytest.mark.parametrize("target", [Classes(3), Real(3, future=True)])
def test_only_the_future_of_symbols_and_frames_can_be_drawn(target: Classes | Real) -> None:
    with pytest.raises(ValueError, match="own future"):
        sample(Constant([0.0] * 3), target, torch.zeros(1, 1, 3), 2, generator())


class Leaky(Fixed):
    """h_t = w h_(t-1) + x_t and y_t = h_t: a recurrence whose gradient is known by hand."""

    def __init__(self, w: float = 0.5) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        self.calls.append((inputs, state))
        h = torch.zeros(len(inputs), dtype=torch.float64) if state is None else state[0]
        lengths = torch.full((len(inputs),), inputs.shape[1]) if lengths is None else lengths
        outputs, after = [], h
        for t in range(inputs.shape[1]):
            h = self.w * h + inputs[:, t, 0]
            after = torch.where(lengths > t, h, after)
            outputs.append(h)
        return torch.stack(outputs, dim=1).unsqueeze(-1), (after,)


X, Y = [1.0, -2.0, 0.5, 3.0, 1.5], [0.3, 1.0, -1.0, 2.0, 0.0]


def stream(scored_steps: list[int]) -> SequenceBatch:
    scored = torch.zeros(1, len(X), dtype=torch.bool)
    scored[0, scored_steps] = True
    values = torch.tensor([X, Y], dtype=torch.float64)[:, None, :, None]  # (2, B, T, 1)
    return SequenceBatch(values[0], values[1], torch.tensor([len(X)]), scored)


def trained(
    predictor: Predictor, split: SequenceBatch, n_steps: int, window: int | None, rate: float = 0.01, **fields: object
) -> Predictor:
    config = FitConfig(
        "sgd",
        rate,
        clip_norm=None,
        n_steps=n_steps,
        evaluate_every=n_steps,
        window=window,
        **fields,  # type: ignore[arg-type]
    )
    # Validation on the same sequences, which alone decides nothing here: it happens once, after the last step.
    fitting.fit(predictor, Problem(Real(1), (squared_error(),)), split, split, config, generator(), lambda row: None)
    return predictor


def by_truncation(window: int, scored_steps: list[int], rate: float, n_passes: int = 1) -> float:
    """w after gradient descent on the windows one by one; the state crosses a cut as a number, its derivative as zero."""
    w = 0.5
    for _ in range(n_passes):
        h = 0.0
        for start in range(0, len(X), window):
            slope, gradient, n = 0.0, 0.0, 0
            for t in range(start, min(start + window, len(X))):
                slope = h + w * slope  # dh_t / dw, before h moves on
                h = w * h + X[t]
                if t in scored_steps:
                    gradient += 2 * (h - Y[t]) * slope
                    n += 1
            w -= rate * gradient / n if n else 0.0
    return w


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_no_gradient_flows_back_over_a_cut_though_the_state_goes_on(window: int) -> None:
    n_windows = -(-len(X) // window)
    predictor = trained(Leaky(), stream([0, 1, 2, 3, 4]), 2 * n_windows, window)
    assert isinstance(predictor, Leaky)
    assert predictor.w.item() == pytest.approx(by_truncation(window, [0, 1, 2, 3, 4], 0.01, n_passes=2), rel=1e-12)
    training_calls = predictor.calls[: 2 * n_windows]
    for i, (_, state) in enumerate(training_calls):
        assert (state is None) == (i % n_windows == 0)  # each pass begins without a past
        assert state is None or not state[0].requires_grad


def test_truncation_matters_so_the_test_above_can_fail() -> None:
    whole, cut = (by_truncation(window, [0, 1, 2, 3, 4], 0.01) for window in (5, 2))
    assert abs(whole - cut) > 1e-3


def test_windows_without_scored_steps_are_read_and_teach_nothing() -> None:
    predictor = trained(Leaky(), stream([4]), n_steps=3, window=2)
    assert isinstance(predictor, Leaky)
    assert predictor.w.item() == pytest.approx(by_truncation(2, [4], 0.01, n_passes=3), rel=1e-12)
    # Three updates, each after two windows that were only read; then validation, whose three windows all are.
    assert [inputs.shape[1] for inputs, _ in predictor.calls[:9]] == [2, 2, 1] * 3
    assert predictor.calls[2][1] is not None and predictor.calls[2][1][0].item() != 0


def test_a_window_as_long_as_the_sequences_is_no_window() -> None:
    split = SequenceBatch(
        torch.randn(12, 6, 1, generator=generator(1)), torch.randn(12, 6, 1, generator=generator(2)),
        torch.tensor([6, 4, 1] * 4), valid_steps(torch.tensor([6, 4, 1] * 4), 6),
    )  # fmt: skip
    weights = []
    for window in (None, 6, 99):
        entry = registry.entry("gru")
        predictor = registry.build(entry, RealInput(1), Real(1), True, dataclasses.replace(entry.config, width=5), 0)
        trained(predictor, split, 10, window, rate=0.1, batch_size=4)
        weights.append(torch.cat([p.detach().flatten() for p in predictor.parameters()]))
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12))
def test_windows_hold_every_step_once_and_say_how_much_of_them_is_valid(lengths: list[int], window: int) -> None:
    longest = max(lengths)
    inputs = torch.arange(len(lengths) * longest).reshape(len(lengths), longest)
    whole = SequenceBatch(inputs, inputs + 1, torch.tensor(lengths), valid_steps(torch.tensor(lengths), longest))
    pieces = list(whole.windows(window))
    assert [piece.inputs.shape[1] for piece in pieces[:-1]] == [window] * (len(pieces) - 1)
    for field in ("inputs", "targets", "scored"):
        assert torch.equal(torch.cat([getattr(piece, field) for piece in pieces], 1), getattr(whole, field))
    assert sum(piece.lengths for piece in pieces).tolist() == lengths  # type: ignore[union-attr, attr-defined]
    assert all(torch.equal(piece.scored, valid_steps(piece.lengths, piece.inputs.shape[1])) for piece in pieces)


@pytest.mark.parametrize("name", ["lstm", "transformer", "tcn", "lru"])
def test_evaluation_in_windows_is_evaluation_of_whole_streams(name: str) -> None:
    entry = registry.entry(name)
    config = dataclasses.replace(entry.config, **{str(entry.width): 8})
    target = Classes(V, future=True)
    predictor = registry.build(entry, TokenInput(V), target, True, config, seed=0).double()
    tokens, lengths = torch.randint(V, (3, 31), generator=generator()), torch.tensor([30, 17, 1])
    split = SequenceBatch(tokens[:, :-1], tokens[:, 1:], lengths, valid_steps(lengths, 30))
    results = [
        evaluate(predictor, Problem(target, (cross_entropy, accuracy), window), split, CPU)
        for window in (None, 1, 7, 30)
    ]
    for other in results[1:]:
        assert other.loss == pytest.approx(results[0].loss)
        for metric in ("cross_entropy", "accuracy"):
            for mine, whole in zip(other.parts[metric], results[0].parts[metric], strict=True):
                torch.testing.assert_close(mine, whole)


def test_text_goes_on_as_a_stream_from_the_state_after_its_prompt() -> None:
    """Drawing step by step gives the symbols that the whole text, read at once, makes just as likely."""
    entry = registry.entry("lstm")
    config = dataclasses.replace(entry.config, width=8)
    target = Classes(V, future=True)
    predictor = registry.build(entry, TokenInput(V), target, True, config, seed=1).double().eval()
    prompt = torch.randint(V, (2, 5), generator=generator())
    drawn = sample(predictor, target, prompt, 12, generator(7))
    again = generator(7)
    with torch.no_grad():
        outputs = predictor(torch.cat([prompt, drawn], 1))[0][:, 4:-1]  # (B, 12, V), where each was due
    for step in range(12):
        expected = torch.multinomial(outputs[:, step].softmax(-1), 1, generator=again)[:, 0]
        assert torch.equal(drawn[:, step], expected)
