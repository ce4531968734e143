"""The contract over the whole registry, and proof that its checks find what they are for."""

import dataclasses
import re

import pytest
import torch
from torch import nn

from benchmarks import checking
from models import registry
from models.contract import Fit, ModelEntry, ParameterCounts, Predictor
from models.names import UnknownName
from models.recurrent import RecurrentConfig
from models.sequences import Classes, RealInput
from models.sizing import TOLERANCE, backbone_parameters, size_to_budget, size_to_state


@pytest.mark.parametrize("name", registry.entries())
def test_the_contract_holds(name):
    findings = list(checking.check(name))
    assert not [finding for finding in findings if not finding.passed]
    assert any(finding.invariant.startswith("chunks") or "initial" in finding.invariant for finding in findings)


@pytest.mark.parametrize("name", registry.entries())
def test_an_entry_says_what_people_and_the_harness_need(name):
    entry = registry.entry(name)
    assert entry.summary and entry.source and entry.family
    assert dataclasses.is_dataclass(entry.config) and entry.config.__dataclass_params__.frozen
    assert (entry.fit is Fit.GRADIENT) == (entry.learning_rate is not None) == (entry.width is not None)
    fields = {field.name for field in dataclasses.fields(entry.config)}
    assert {key for key in entry.search_space if not key.startswith("fit.")} <= fields
    for field in fields:
        assert field in type(entry.config).__doc__, f"{field} is not documented"


@pytest.mark.parametrize("name", registry.entries())
def test_the_formula_of_the_state_gives_its_bytes(name):
    entry = registry.entry(name)
    taken = [kind for kind in checking.KINDS if entry.refuses(*kind) is None]
    kind = min(taken, key=lambda kind: (not kind.causal, kind != checking.KINDS[1]))
    config, _ = size_to_budget(entry, *kind, entry.config, 4000)
    predictor = registry.build(entry, *kind, config, 0).double()
    settings = dataclasses.asdict(config)
    letters = {
        "D": kind.inputs.features,
        "K": kind.target.n_outputs,
        "T": kind.inputs.max_length,
        "min": min,
        "max": max,
    }
    letters |= {"C": getattr(kind.inputs, "channels", 0), "V": getattr(kind.inputs, "vocabulary", 0)}
    fields = {"H": entry.width or "", "L": "n_layers", "S": "n_states", "W": "window"}
    letters |= {letter: settings[name] for letter, name in fields.items() if name in settings}
    for t in (1, 5, 2000):
        assert 8 * eval(entry.state, {"__builtins__": {}}, settings | letters | {"t": t}) == predictor.state_bytes(t)


@pytest.mark.parametrize("kind", checking.KINDS, ids=str)
def test_a_model_is_not_built_for_what_it_refuses_and_says_why(kind):
    refused = [entry for entry in registry.entries().values() if entry.refuses(*kind) is not None]
    assert refused
    for entry in refused:
        with pytest.raises(ValueError, match=re.escape(entry.refuses(*kind))):
            registry.build(entry, *kind, entry.config, 0)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean 'lstm'"):
        registry.entry("lsmt")


@pytest.mark.parametrize("name", [name for name, entry in registry.entries().items() if entry.width])
@pytest.mark.parametrize("budget", [20_000, 200_000])
def test_sizing_meets_the_budget_or_says_by_how_much_not(name, budget):
    entry = registry.entry(name)
    kind = (RealInput(6, 100), Classes(4, "sequence"), False)
    config, note = size_to_budget(entry, *kind, entry.config, budget)
    off = abs(backbone_parameters(entry, *kind, config) / budget - 1)
    assert (off <= TOLERANCE) == (note is None)
    step = entry.width_multiple
    for width in (getattr(config, entry.width) - step, getattr(config, entry.width) + step):
        neighbour = dataclasses.replace(config, **{entry.width: width})
        assert abs(backbone_parameters(entry, *kind, neighbour) / budget - 1) >= off


@pytest.mark.parametrize("size", [size_to_budget, size_to_state])
def test_a_width_set_by_hand_is_left_alone(size):
    entry = registry.entry("lstm")
    config, note = size(entry, RealInput(2), Classes(2), True, RecurrentConfig(width=7), 20_000)
    assert (config.width, note) == (7, None)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "deep_lstm", "tcn", "transformer", "mingru", "lru"])
def test_sizing_to_a_state_gives_a_model_that_carries_as_much(name):
    entry, budget = registry.entry(name), 8_192
    kind = (RealInput(6, 20), Classes(4), True)
    config, note = size_to_state(entry, *kind, entry.config, budget)
    off = abs(registry.build(entry, *kind, config, 0).state_bytes(20) / budget - 1)
    assert (off <= TOLERANCE) == (note is None) and off < 0.2


@pytest.mark.parametrize(
    ("name", "reason"), [("bilstm", "takes whole sequences"), ("feed_forward", "the same state at any width")]
)
def test_what_carries_no_state_that_a_width_could_change_cannot_meet_a_state_budget(name, reason):
    entry = registry.entry(name)
    with pytest.raises(ValueError, match=reason):
        size_to_state(entry, RealInput(6, 20), Classes(4, "sequence"), False, entry.config, 4_096)


class Leaky(Predictor):
    """Breaks the contract in the way that it is told to."""

    def __init__(self, fault, n_outputs):
        super().__init__()
        self.fault, self.n_outputs, self.causal = fault, n_outputs, True
        self.weight = nn.Parameter(torch.tensor([0.7]))
        self.noise = 0.0

    def forward(self, inputs, state=None, lengths=None):
        n, longest = inputs.shape[:2]
        ends = torch.full((n,), longest) if lengths is None else lengths
        x = inputs if self.fault == "padding" else inputs.nan_to_num(0.5 if self.fault == "state" else 0.0)
        values = x.to(self.weight.dtype).mean(-1)  # (B, T)
        start = torch.zeros(n, 1, dtype=self.weight.dtype) if state is None else state[0]
        sums = start + self.weight * values.cumsum(1)
        if self.fault == "future":
            sums = sums + values.sum(1, keepdim=True)
        if self.fault == "batch":
            sums = sums + values.mean()
        if self.fault == "padding":
            sums = sums + 0 * values.sum(1, keepdim=True)
        if self.fault == "seed":
            self.noise += 1.0
            sums = sums + self.noise
        rows = torch.cat([start, sums], dim=1)
        last = rows.gather(1, ends[:, None]) if self.fault != "state" else rows[:, -1:]
        outputs = sums[..., None].expand(-1, -1, self.n_outputs)
        return outputs, (last.detach() if self.fault == "gradient" else last,)

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, 1, dtype=self.weight.dtype) + (self.fault == "start"),)

    def state_bytes(self, t):
        return self.weight.element_size() * (2 if self.fault == "bytes" else 1)

    def parameter_counts(self):
        return ParameterCounts(2 if self.fault == "count" else 1)


@dataclasses.dataclass(frozen=True)
class LeakyConfig:
    fault: str = "none"


@pytest.mark.parametrize(
    ("fault", "found_by"),
    [
        ("none", None),
        ("state", "ragged chunks compose"),
        ("future", "past ignores the future"),
        ("batch", "batch equals members"),
        ("padding", "padding stays out"),
        ("seed", "same seed same numbers"),
        ("start", "initial state is the beginning"),
        ("gradient", "gradients compose"),
        ("bytes", "counts are real"),
        ("count", "counts are real"),
    ],
)
def test_a_broken_contract_is_found(monkeypatch, fault, found_by):
    entry = ModelEntry(
        name="leaky",
        family="recurrent",
        config=LeakyConfig(fault),
        build=lambda inputs, target, causal, config: Leaky(config.fault, target.n_outputs),
        fit=Fit.GRADIENT,
        source="",
        summary="",
        refuses=lambda inputs, target, causal: None if isinstance(inputs, RealInput) else "real inputs only",
    )
    monkeypatch.setitem(registry.entries(), "leaky", entry)
    failed = {finding.invariant.split(",")[0] for finding in checking.check("leaky") if not finding.passed}
    assert (found_by in failed) if found_by else (failed == set())
