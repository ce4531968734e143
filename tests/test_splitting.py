"""Own data: no leak between splits, what is asked, long sequences, gaps, unbalanced classes, and the time of a comparison."""

from __future__ import annotations

import math
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from benchmarks import evaluation, terms
from benchmarks.experiment import prepare as open_trial
from benchmarks.fitting import FitConfig
from benchmarks.metrics import Parts
from benchmarks.sequence_metrics import average_precision, average_precisions
from benchmarks.suite import load
from benchmarks.tasks.your_data import YourData
from benchmarks.verdicts import Scores, estimate
from benchmarks.your_data import comparing, plain
from benchmarks.your_data.comparing import Asked, look, overhead, seconds_per_fit
from benchmarks.your_data.kinds import question
from benchmarks.your_data.parts import TEST, drawn, parts
from benchmarks.your_data.prepared import Prepared
from benchmarks.your_data.reading import Roles, locate, read
from benchmarks.your_data.recording import BadInput, Recording
from benchmarks.your_data.sequences import LEAD, LONGEST, prepare
from models import registry
from models.sequences import Classes, SequenceBatch, last_steps


def recorded(frame: pd.DataFrame, folder: Path, **roles: object) -> Recording:
    path = folder / "own.csv"
    frame.to_csv(path, index=False)
    return read(locate(path), Roles(**roles))  # type: ignore[arg-type]


def ready(recording: Recording, kind: str = "auto", horizon: int | None = None, **options: bool) -> Prepared:
    asked = question(recording, kind, horizon)
    return prepare(recording, asked, parts(recording, asked), **options)


def sequences(n: int, n_steps: int = 6, seed: int = 0, n_classes: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), n_steps),
            "t": np.tile(np.arange(n_steps), n),
            "x": rng.normal(size=n * n_steps).round(3),
            "y": np.repeat([f"c{k}" for k in np.arange(n) % n_classes], n_steps),
        }
    )


def sides(recording: Recording, made: Prepared, column: str, seed: int) -> dict[object, set[int]]:
    """Value of the column → the splits in which its rows are scored or read."""
    values = recording.frame[column].astype(str).to_numpy()
    found: dict[object, set[int]] = {}
    for which, windows in enumerate(made.choose(seed)):
        for start, length in zip(windows.start, windows.length, strict=True):
            for value in set(values[start : start + length]):
                found.setdefault(value, set()).add(which)
    return found


# ----- leaks ---------------------------------------------------------------------------------------------------------


def trials_of_subjects() -> pd.DataFrame:
    """Trial numbers begin again with each subject."""
    frames = [
        sequences(6, 5, subject, 3).rename(columns={"id": "trial"}).assign(subject=f"S{subject}")
        for subject in range(12)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("target", ["y", "x"])
def test_a_trial_number_under_several_subjects_is_a_sequence_of_each_and_no_subject_is_split(
    target: str, tmp_path: Path
) -> None:
    recording = recorded(trials_of_subjects(), tmp_path, target=target, sequence_id="trial", time="t", group="subject")
    made = ready(recording)
    assert len(made.windows) == 72 and set(made.windows.length) == {5}
    assert any("subject and trial together name a sequence" in remark for remark in made.remarks)
    assert all(len(splits) == 1 for splits in sides(recording, made, "subject", 0).values())


def test_a_group_without_a_sequence_id_names_the_sequences(tmp_path: Path) -> None:
    frame = trials_of_subjects().drop(columns="trial").sample(frac=1, random_state=0)
    recording = recorded(frame.assign(t=np.arange(len(frame))), tmp_path, target="x", time="t", group="subject")
    made = ready(recording, kind="regression")
    assert all(len(splits) == 1 for splits in sides(recording, made, "subject", 1).values())


def test_groups_that_each_hold_a_class_of_their_own_are_refused(tmp_path: Path) -> None:
    frame = sequences(40, n_classes=5).assign(site=lambda rows: rows["y"].str.replace("c", "site"))
    recording = recorded(frame, tmp_path, target="y", sequence_id="id", time="t", group="site")
    with pytest.raises(BadInput, match="the classes of test would not occur in train"):
        ready(recording)


def test_every_class_of_test_occurs_in_train_where_groups_hold_few_classes(tmp_path: Path) -> None:
    frame = sequences(80, n_classes=4)
    frame["site"] = frame["y"].str[1:].astype(int) // 2 * 10 + frame["id"] % 3  # each site holds two of four classes
    for seed in range(5):
        made = ready(recorded(frame, tmp_path, target="y", sequence_id="id", time="t", group="site"))
        train, _, test = made.choose(seed)
        assert set(made.answers.values[test.start]) <= set(made.answers.values[train.start])


ODD = st.text(string.ascii_letters + string.digits + " .,'\"_-+é/", min_size=1, max_size=6)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, dict[str, object]]:
    """A random table with sequences, groups, missing targets and odd ids, and what is said of its columns."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    names = draw(st.lists(ODD, min_size=1, max_size=n))
    n_groups = draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["class", "tag", "number", "level"]))
    rows = []
    for number in range(n):
        length = int(rng.integers(1, 9))
        group = int(rng.integers(n_groups))
        target: object = {"class": f"c{rng.integers(3)}", "number": round(float(rng.normal()), 3)}.get(kind)
        for step in range(length):
            if kind == "tag":
                target = f"g{rng.integers(3)}"
            elif kind == "level":
                target = round(float(rng.normal()), 3)
            value = round(float(rng.normal()), draw(st.sampled_from([0, 3])) if step == 0 else 3)
            rows.append([names[number % len(names)], f"G {group}", step, value, target])
    frame = pd.DataFrame(rows, columns=["id", "g", "t", "x", "y"])
    share = draw(st.sampled_from([0.0, 0.1, 0.6]))
    frame["y"] = frame["y"].where(rng.random(len(frame)) >= share)
    frame = frame.drop_duplicates(["id", "g", "t"])
    roles: dict[str, object] = {"target": "y", "sequence_id": "id", "time": "t"}
    if draw(st.booleans()):
        roles["group"] = "g"
    elif draw(st.booleans()):
        roles["sequence_id"] = ("id", "g")
    return frame, roles


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.integers(0, 3))
def test_no_group_and_no_sequence_is_in_two_parts_and_every_outcome_is_a_reading_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, drawn_table: tuple[pd.DataFrame, dict[str, object]], seed: int
) -> None:
    frame, roles = drawn_table
    try:
        recording = recorded(frame, tmp_path_factory.mktemp("own"), **roles)
        made = ready(recording)
    except BadInput as error:
        assert "\n" not in str(error) and str(error).startswith("own.csv")
        return
    if " by time" in f" {made.told}":  # fewer than five sequences: time is cut, which is said
        assert "group" not in roles
        return
    for column in [recording.sequence, *([recording.group] if recording.group else [])]:
        assert column is not None
        assert all(len(splits) == 1 for splits in sides(recording, made, column, seed).values())
    for batch in made.splits(seed):
        batch.validate()


def test_another_order_of_columns_or_rows_and_other_names_change_nothing(tmp_path: Path) -> None:
    frame = trials_of_subjects().assign(
        z=lambda rows: rows["x"] ** 2, kind=lambda rows: "k" + (rows["t"] // 2).astype(str)
    )
    roles = {"target": "y", "sequence_id": "trial", "time": "t", "group": "subject"}
    plain_batches = ready(recorded(frame, tmp_path, **roles)).splits(0)
    renamed = {"target": "label", "sequence_id": "run", "time": "step", "group": "who"}
    names = dict(zip(roles.values(), renamed.values(), strict=True))
    for changed, said in (
        (frame.rename(columns=names), renamed),
        (frame[["subject", "y", "t", "x", "z", "kind", "trial"]], roles),
        (frame.sample(frac=1, random_state=3), roles),
    ):
        for one, other in zip(plain_batches, ready(recorded(changed, tmp_path, **said)).splits(0), strict=True):
            assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


# ----- shares and copies ---------------------------------------------------------------------------------------------


def event_log(n: int = 400, same: float = 0.57) -> pd.DataFrame:
    """Cases of activities; most are the same three steps."""
    rng = np.random.default_rng(0)
    rows = []
    for case in range(n):
        steps = ["open", "check", "close"] if rng.random() < same else ["open", *rng.choice(list("abcdef"), 4), "close"]
        rows += [
            (f"case {case}", k, activity, "late" if rng.random() < 0.4 else "in time")
            for k, activity in enumerate(steps)
        ]
    log = pd.DataFrame(rows, columns=["case", "k", "activity", "outcome"])
    return log.assign(outcome=log.groupby("case")["outcome"].transform("first"))


@pytest.mark.parametrize("kind", ["next_symbol", "classification"])
@pytest.mark.parametrize("with_split", [False, True])
def test_shares_are_what_is_printed_though_most_cases_of_an_event_log_are_equal(
    kind: str, with_split: bool, tmp_path: Path
) -> None:
    frame = event_log()
    if with_split:
        is_test = frame["case"].str[5:].astype(int) % 5 == 0
        frame["part"] = np.where(is_test, "test", "train")
    target = "activity" if kind == "next_symbol" else "outcome"
    roles = {"target": target, "sequence_id": "case", "time": "k", **({"split": "part"} if with_split else {})}
    ignore = ("outcome",) if kind == "next_symbol" else ()
    recording = recorded(frame, tmp_path, ignore=ignore, **roles)
    made = ready(recording, kind)
    train, validation, test = made.shares()
    assert validation / (train + validation) == pytest.approx(0.2, abs=0.02)
    if with_split:  # the file says which cases are tested
        rows = parts(recording, made.question).rows
        test_share = (rows == TEST).mean()
        assert test == pytest.approx(test_share, abs=0.02)
    else:
        assert test == pytest.approx(0.2, abs=0.02)
    assert any("repeat an earlier one in every input; they are symbols" in remark for remark in made.remarks)
    if kind == "classification":
        counts = np.array(made.counts())
        np.testing.assert_allclose(counts / counts.sum(), made.shares())


def test_copies_of_a_recording_stay_in_one_split_and_it_is_said(tmp_path: Path) -> None:
    frame = sequences(60)
    copies = frame[frame["id"] < 15].assign(id=lambda rows: rows["id"] + 100)
    recording = recorded(pd.concat([frame, copies]), tmp_path, target="y", sequence_id="id", time="t")
    made = ready(recording)
    assert any(
        "15 of 75 sequences repeat an earlier one in every input: they are copies" in remark for remark in made.remarks
    )
    for seed in range(3):
        found = sides(recording, made, "id", seed)
        assert all(found[str(number)] == found[str(number + 100)] for number in range(15))
        assert made.shares()[2] == pytest.approx(0.2, abs=0.02)


def test_a_share_is_drawn_by_size_within_each_stratum() -> None:
    rng = np.random.default_rng(0)
    strata, sizes = rng.integers(0, 3, 300), rng.integers(1, 20, 300)
    chosen = drawn(strata, sizes, 0.2, rng)
    for stratum in range(3):
        own = strata == stratum
        assert sizes[own & chosen].sum() / sizes[own].sum() == pytest.approx(0.2, abs=0.01)
    one_large = drawn(np.zeros(50), np.array([200, *[1] * 49]), 0.2, rng)
    assert not one_large[0]


def test_sequences_without_a_target_are_left_out_and_counted(tmp_path: Path) -> None:
    frame = sequences(40).assign(y=lambda rows: rows["y"].where(rows["id"] % 8 > 0))
    made = ready(recorded(frame, tmp_path, target="y", sequence_id="id", time="t"))
    assert len(made.windows) == 35 and any(
        "left out: 5 sequences without a target" in remark for remark in made.remarks
    )
    for batch in made.splits(0):
        batch.validate()
        assert bool((batch.scored.sum(1) == 1).all())


# ----- long sequences ------------------------------------------------------------------------------------------------


def test_one_very_long_sequence_changes_nothing_of_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame({"id": f"s{k:02}", "t": np.arange(n), "x": rng.normal(size=n), "y": f"c{k % 2}"})
        for k, n in enumerate([*rng.integers(40, 61, 80), 30_000])
    ]
    recording = recorded(pd.concat(frames), tmp_path, target="y", sequence_id="id", time="t")
    made = ready(recording)
    assert made.windows.length[:80].tolist() == [len(frame) for frame in frames[:80]]
    assert made.windows.length[80] <= LONGEST
    without = ready(recorded(pd.concat(frames[:80]), tmp_path, target="y", sequence_id="id", time="t"))
    own = made.steps.values[: without.windows.length.sum(), 0]
    slope = np.corrcoef(own, without.steps.values[:, 0])[0, 1]  # the scale is that of all training rows
    assert slope == pytest.approx(1.0, abs=1e-5)


def test_the_state_of_a_stream_is_carried_into_its_test_windows(tmp_path: Path) -> None:
    """A sign is given every 60 steps and holds until the next one: windows of 20 steps alone would mostly not show it."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], 14)
    x = np.zeros(14 * 60)
    x[::60] = signs
    frame = pd.DataFrame({"t": np.arange(len(x)), "x": x, "y": np.where(np.repeat(signs, 60) > 0, "up", "down")})
    made = ready(recorded(frame, tmp_path, target="y", time="t"))
    test = made.choose(0)[2]
    assert (test.length - test.lead).max() < 30 and (test.lead == LEAD).all()
    batch = made.batch(test)
    for i in range(len(batch)):
        shown = [float(v) for v in batch.inputs[i, : batch.lengths[i], 0]]
        first = int(batch.scored[i].nonzero()[0])
        assert first == test.lead[i] and len(set(shown[: first + 1])) > 1  # the sign that holds was read before
    scored = sum(int(part.scored.sum()) for part in made.splits(0)[1:])
    assert (
        scored == np.isin(parts(recorded(frame, tmp_path, target="y", time="t"), made.question).rows, (1, TEST)).sum()
    )


# ----- unbalanced classes --------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40), st.integers(0, 2**32 - 1))
def test_average_precision_is_that_of_scikit_learn_with_ties_and_weights(
    drawn_terms: list[tuple[int, bool]], seed: int
) -> None:
    scores, positive = (np.array(column, dtype=float) for column in zip(*drawn_terms, strict=True))
    counts = np.random.default_rng(seed).integers(0, 4, (3, len(scores))).astype(float)
    counts[0] = 1
    found = average_precisions(counts, scores, positive)
    for row, value in zip(counts, found, strict=True):
        if (row * positive).sum() > 0:
            assert value == pytest.approx(average_precision_score(positive, scores, sample_weight=row))
        else:
            assert math.isnan(value)


def test_average_precision_of_a_batch_is_that_of_its_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, lengths = torch.randn(30, 4, 2, generator=generator), torch.randint(1, 5, (30,), generator=generator)
    scored = last_steps(lengths, 4)
    classes = torch.randint(0, 2, (30,), generator=generator)
    batch = SequenceBatch(torch.zeros(30, 4, 1), classes[:, None] * scored, lengths, scored)
    metric = average_precision(1, "failure")
    chosen = logits[scored]
    expected = average_precision_score(classes, chosen[:, 1] - chosen[:, 0])
    assert metric.value(metric.parts(logits, batch)) == pytest.approx(expected)
    assert math.isnan(metric.value(metric.parts(logits.masked_fill(scored[..., None], torch.nan), batch)))


def test_the_interval_of_average_precision_is_a_bootstrap_over_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        positive = (rng.random(n) < 0.2).astype(float)
        return rng.normal(positive, 1.0).astype(np.float32).astype(float), positive

    true = np.std([average_precision_score(positive, scores) for scores, positive in (sample(400) for _ in range(400))])
    scores, positive = sample(400)
    path = tmp_path / "terms.npz"
    terms.write(path, {"average_precision": Parts(torch.tensor(scores), torch.tensor(positive))})
    kept = terms.read(path, "average_precision", statistic=average_precisions)
    assert kept is not None and not kept.is_mean
    value = average_precision_score(positive, scores)
    found = estimate(Scores(dict.fromkeys(range(3), value), dict.fromkeys(range(3), kept)))
    assert found.sequences == pytest.approx(true, rel=0.3)
    assert terms.standard_error([kept], [kept]) == 0
    assert terms.standard_error([kept.scaled(2.0)]) == pytest.approx(2 * terms.standard_error([kept]))


def unbalanced(folder: Path, n_classes: int, kind: str = "classification") -> YourData:
    frame = sequences(200)
    rng = np.random.default_rng(1)
    rare = rng.permutation(200) < 20
    frame["y"] = np.where(rare[frame["id"]], "r" + (frame["id"] % (n_classes - 1)).astype(str), "ok")
    if kind == "tagging":
        frame["y"] = np.where(rng.random(len(frame)) < 0.1, "rare", "ok")
    path = folder / "own.csv"
    frame.to_csv(path, index=False)
    return YourData(str(path), locate(path).digest(), "y", "id", time="t", kind=kind)  # type: ignore[arg-type]


def test_where_one_class_prevails_the_primary_metric_is_no_accuracy_and_checkpoints_follow_it(tmp_path: Path) -> None:
    assert unbalanced(tmp_path, 2).metrics[0].name == "average_precision"
    assert unbalanced(tmp_path, 3).metrics[0].name == "balanced_accuracy"
    assert unbalanced(tmp_path, 2, "tagging").metrics[0].name == "balanced_accuracy"
    task = unbalanced(tmp_path, 2)
    assert task.problem.selecting().metrics[0].name == "average_precision"
    plan = look(task.file, Asked(Roles("y", "id", None, "t"), models=("gru", "floor")))
    assert any(
        line.startswith("metric: average_precision") and "checkpoints are chosen by it" in line for line in plan.told
    )
    suite = tmp_path / "suite.yaml"
    suite.write_text(plan.content)
    (trial,) = load(str(suite)).trials(models=["floor"], seeds=1, device="cpu")
    experiment = open_trial(trial.task, "floor", 0, None, "cpu", trial.task_parameters, {}, {}, str(tmp_path / "run"))
    experiment.fit()
    experiment.evaluate()
    prevalence = float((experiment.splits.test.targets[experiment.splits.test.scored] == 1).double().mean())
    assert experiment.result.test["average_precision"] == pytest.approx(prevalence)
    assert experiment.result.floor == pytest.approx(prevalence)


def test_three_classes_of_like_size_are_judged_by_accuracy(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    sequences(30, n_classes=3).to_csv(path, index=False)
    assert YourData(str(path), "", "y", "id", time="t").metrics[0].name == "accuracy"


# ----- kinds ---------------------------------------------------------------------------------------------------------


def test_a_series_of_whole_numbers_in_order_of_time_is_a_forecast_of_one_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = pd.DataFrame(
        {"day": pd.date_range("2024-01-01", periods=300), "n": rng.poisson(4, 300), "rain": rng.random(300)}
    )
    made = ready(recorded(counts, tmp_path, target="n", time="day"))
    assert (made.question.kind, made.question.horizon) == ("forecasting", 1)
    assert made.steps.channels == ("n", "rain")  # its own past is an input
    # What else is known is read up to the last known day only.
    later = counts.assign(rain=np.where(counts.index >= 299, 99.0, counts["rain"]))
    other = ready(recorded(later, tmp_path, target="n", time="day"))
    last = made.choose(0)[2].start + made.choose(0)[2].length - 1
    assert last.max() == 298
    for one, two in zip(made.splits(0), other.splits(0), strict=True):
        assert torch.equal(one.inputs, two.inputs)
    assert (
        ready(recorded(counts.assign(n=counts["n"] % 2), tmp_path, target="n", time="day")).question.kind == "tagging"
    )


def test_no_window_runs_across_a_gap_in_time_unless_it_is_allowed(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=700)
    frame = pd.DataFrame({"day": days, "y": np.sin(np.arange(700) / 3)})
    frame = frame[(frame.index < 200) | (frame.index >= 350)].drop(index=[50, 51])  # two missing days are no gap
    recording = recorded(frame, tmp_path, target="y", time="day")
    times = recording.frame["day"].to_numpy()
    made, across = ready(recording, horizon=7), ready(recording, horizon=7, across_gaps=True)
    assert any("1 gap in day" in remark and "--across-gaps" in remark for remark in made.remarks)

    def widest(windows: Prepared) -> int:
        first, last = windows.windows.start, windows.windows.start + windows.windows.length - 1 + 7
        return int(((times[last] - times[first]) // np.timedelta64(1, "D")).max())

    assert widest(made) < 32 + 7 + 7 < 150 < widest(across)
    assert len(made.windows) < len(across.windows)


@pytest.mark.parametrize("kind", ["seq2seq", "sequence-to-sequence", "translation"])
def test_sequence_to_sequence_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    recording = recorded(sequences(20), tmp_path, target="y", sequence_id="id")
    with pytest.raises(BadInput, match=r"sequence to sequence .*is not supported"):
        question(recording, kind)


def test_a_text_per_sequence_and_more_than_500_classes_are_refused_by_name(tmp_path: Path) -> None:
    frame = sequences(60).assign(y=lambda rows: "say " + rows["id"].astype(str) + " aloud")
    with pytest.raises(BadInput, match="sequence to sequence is not supported"):
        question(recorded(frame, tmp_path, target="y", sequence_id="id"))
    frame = sequences(1300, 2).assign(y=lambda rows: "k" + (rows["id"] % 600).astype(str))
    with pytest.raises(BadInput, match="classification with 600 classes is not supported: at most 500 are"):
        question(recorded(frame, tmp_path, target="y", sequence_id="id"))


# ----- next symbol ---------------------------------------------------------------------------------------------------


def test_an_end_symbol_is_offered_and_learned_by_counting(tmp_path: Path) -> None:
    recording = recorded(event_log(), tmp_path, target="activity", sequence_id="case", time="k", ignore=("outcome",))
    made, without = ready(recording, "next_symbol", end=True), ready(recording, "next_symbol")
    assert made.steps.symbols is not None and made.steps.symbols[-1] == "<end>"
    assert int(made.windows.length.sum()) == int(without.windows.length.sum()) + 400
    for batch in made.splits(0):
        batch.validate()
        assert int(batch.inputs.max()) < len(made.steps.symbols) - 1
        last = batch.targets[torch.arange(len(batch)), batch.lengths - 1]
        assert bool((last == len(made.steps.symbols) - 1).all())


def test_end_is_for_sequences_of_symbols_only(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    sequences(20).to_csv(path, index=False)
    with pytest.raises(BadInput, match="--end is for --kind next_symbol, and this is classification"):
        look(path, Asked(Roles("y", "id", end=True)))
    (tmp_path / "a.txt").write_text("to be or not to be " * 40)
    with pytest.raises(BadInput, match="--end needs several sequences"):
        look(tmp_path / "a.txt", Asked(Roles(end=True)))


def test_where_no_column_is_left_the_sentence_names_time_and_next_symbol(tmp_path: Path) -> None:
    recording = recorded(sequences(20)[["id", "y"]], tmp_path, target="y", sequence_id="id")
    with pytest.raises(BadInput, match=r"no column is left .*--time.*--kind next_symbol"):
        ready(recording, "classification")


# ----- the time of a comparison, and its command ---------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [3, 6, 10, 60])
@pytest.mark.parametrize("own_s", [0.05, 4.0])
@pytest.mark.parametrize("beside_s", [1.0, 5.0])
def test_at_least_85_percent_of_the_minutes_are_used_by_a_fake_clock(
    minutes: int, own_s: float, beside_s: float
) -> None:
    """8 models that fit themselves and 9 by gradient, 3 seeds each, two at a time."""
    workers, start_s, report_s = 2, 8.0, 12.0
    clock = start_s + math.ceil(24 / workers) * (own_s + beside_s)
    seconds = seconds_per_fit(60 * minutes - clock - start_s - comparing.REPORT_S, 27, workers, beside_s)
    clock += start_s + math.ceil(27 / workers) * (seconds + beside_s) + report_s
    if seconds > comparing.LEAST_S:
        assert 0.85 * 60 * minutes <= clock <= 60 * minutes
    else:
        assert minutes == 3


def test_every_fit_by_gradient_has_the_same_time_and_the_cap_of_the_others_is_higher(tmp_path: Path) -> None:
    path, suite = tmp_path / "own.csv", tmp_path / "suite.yaml"
    sequences(40).to_csv(path, index=False)
    plan = look(path, Asked(Roles("y", "id", None, "t"), models=("gru", "hmm", "floor", "lstm"), minutes=4, workers=2))
    ids = {}
    for seconds in (None, 7.5, 30.0):
        suite.write_text(plan.suite(seconds))
        trials = load(str(suite)).trials(device="cpu")
        given_s = {trial.fit["seconds"] for trial in trials if trial.model in ("gru", "lstm")}
        assert given_s == (set() if seconds is None else {seconds})
        own = [trial for trial in trials if trial.model in ("hmm", "floor")]
        assert len(own) == 6 and all(trial.fit["max_seconds"] >= 2 * trial.fit["seconds"] for trial in own)
        ids[seconds] = {trial.id for trial in own}
    assert ids[None] == ids[7.5] == ids[30.0]  # what was run first is not run again
    assert plan.minutes >= 3 and FitConfig(**{"seconds": 7.5, "max_seconds": 75.0}).seconds == 7.5


def test_what_a_trial_takes_beside_its_fit_is_measured_in_this_run(tmp_path: Path) -> None:
    assert overhead(tmp_path, [], 0.0) == (comparing.START_S, comparing.TRIAL_S)


def test_other_options_have_a_report_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    sequences(40).to_csv(path, index=False)
    roles = Roles("y", "id", None, "t")
    asked = [
        Asked(roles, models=("gru", "floor")),
        Asked(roles, models=("lstm", "floor")),
        Asked(roles, models=("gru", "floor"), minutes=20),
        Asked(roles, models=("gru", "floor"), causal=True),
        Asked(Roles("y", "id", None, "t", ignore=("x", "t")) if False else Roles("y", "id"), models=("gru", "floor")),
    ]
    names = [look(path, each).name for each in asked]
    assert len(set(names)) == len(names)
    assert look(path, asked[0]).name == names[0]


def test_a_dry_run_says_what_was_read_and_planned_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.__main__ import app

    path, results = tmp_path / "own.csv", tmp_path / "results"
    sequences(40).to_csv(path, index=False)
    monkeypatch.setattr(comparing, "complete", None)  # nothing may run
    options = ["--target", "y", "--sequence-id", "id", "--time", "t", "--models", "gru,floor"]
    app(["compare", str(path), *options, "--dry-run", "--results", str(results)], standalone_mode=False)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["read", "found", "splits", "plan"] and not results.exists()


SUITE = """# Command: rnnbench run own.yaml
# Time: seconds
# Expected: nothing
name: own
description: a suite by hand
seeds: 1
fit: {{n_steps: 3}}
grids: [{{models: [floor], tasks: [{{name: your_data, parameters: {{file: {file}, {more}}}}}]}}]
"""


def test_a_suite_by_hand_is_checked_like_compare_and_needs_no_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.__main__ import app

    path, suite = tmp_path / "own.csv", tmp_path / "own.yaml"
    sequences(40).to_csv(path, index=False)
    command = ["run", str(suite), "--dry-run", "--results", str(tmp_path / "results"), "--device", "cpu"]
    suite.write_text(SUITE.format(file=path, more="target_column: yy, sequence_id: id"))
    with pytest.raises(BadInput, match=r"own\.csv: --target: there is no column 'yy'; did you mean 'y'\?"):
        app(command, standalone_mode=False)
    suite.write_text(SUITE.format(file=path, more="target_column: y, sequence_id: id"))
    app(command, standalone_mode=False)
    capsys.readouterr()
    (trial,) = load(str(suite)).trials(device="cpu")
    assert trial.task_parameters["sha256"] == locate(path).digest()
    path.write_text(path.read_text() + "40,0,1.0,c0\n")
    (other,) = load(str(suite)).trials(device="cpu")
    assert other.id != trial.id  # a changed file is another experiment
    suite.write_text(SUITE.format(file=tmp_path / "gone.csv", more="target_column: y"))
    with pytest.raises(BadInput, match="there is no such file"):
        load(str(suite))


def test_a_text_file_still_has_windows_whose_first_steps_are_not_scored_twice() -> None:
    made = ready(plain.characters(("the quick brown fox\n" * 200).encode(), "a.txt"))
    train, validation, test = made.choose(0)
    assert (train.lead == 0).all() and (validation.lead > 0).all() and (test.lead > 0).all()
    batch = made.batch(test)
    values = evaluation.Problem(Classes(len(made.steps.symbols or ()), future=True), ())
    assert values.target.n == len(made.steps.symbols or ())
    assert int(batch.scored.sum()) == int((test.length - test.lead).sum())


def test_wide_rows_of_a_group_are_sequences_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(40, 12)), columns=[f"v{k}" for k in range(12)])
    wide = wide.assign(site=[f"s{k % 8}" for k in range(40)], y=[f"c{k % 2}" for k in range(40)])
    made = ready(recorded(wide, tmp_path, target="y", group="site", wide=True))
    assert len(made.windows) == 40 and set(made.windows.length) == {12}


def test_a_rare_word_of_a_sentence_stands_for_its_ending(tmp_path: Path) -> None:
    """Every word occurs once, and its ending gives its tag: `frequent_tag` can know nothing else of the test words."""
    rng = np.random.default_rng(0)

    def word() -> tuple[str, str]:
        ending, tag = (("ing", "V"), ("ness", "N"), ("ous", "A"))[int(rng.integers(3))]
        return "".join(rng.choice(list("bcdfgklmprt"), 6)) + ending, tag

    sentences = [["the\tD", *("\t".join(word()) for _ in range(6))] for _ in range(120)]
    path = tmp_path / "a.conll"
    path.write_text("\n\n".join("\n".join(sentence) for sentence in sentences) + "\n")
    task = YourData(**yaml.safe_load(look(path, Asked(Roles())).content)["grids"][0]["tasks"][0]["parameters"])
    names = task.input_symbols
    assert names is not None and "the" in names and any(name.startswith("<a -") for name in names)
    train, validation, test = task.splits(0)
    predictor = registry.build(
        registry.entry("frequent_tag"), task.input, task.target, task.causal, registry.entry("frequent_tag").config, 0
    )
    predictor.fit(train, validation, torch.Generator().manual_seed(0))
    answers = predictor(test.inputs, None, test.lengths)[0].argmax(-1)
    assert float((answers == test.targets)[test.scored].double().mean()) > 0.95
