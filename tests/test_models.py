"""The contract over the whole registry, and proof that its checks find what they are for."""

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks import checking
from models import registry
from models.contract import Classes, Fit, ModelEntry, ParameterCounts, Predictor, RealInput
from models.convolutional import TCNConfig, blocks_to_cover, receptive_field
from models.names import UnknownName
from models.recurrent import RecurrentConfig
from models.sizing import TOLERANCE, backbone_parameters, size_to_budget


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


def test_a_width_set_by_hand_is_left_alone():
    entry = registry.entry("lstm")
    config, note = size_to_budget(entry, RealInput(2), Classes(2), True, RecurrentConfig(width=7), 20_000)
    assert (config.width, note) == (7, None)


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [2, 5])
def test_the_measured_receptive_field_of_the_tcn_is_the_formula(kernel_size, n_blocks):
    entry = registry.entry("tcn")
    config = TCNConfig(width=3, kernel_size=kernel_size, n_blocks=n_blocks)
    predictor = registry.build(entry, RealInput(1, None, 4), Classes(2), True, config, 0).double()
    with torch.no_grad():
        for convolution in predictor.backbone.convolutions:
            convolution.convolution.weight = torch.ones_like(convolution.convolution.weight)
    field = receptive_field(kernel_size, n_blocks)
    inputs = torch.ones(1, field + 5, 1, dtype=torch.float64, requires_grad=True)
    for parameter in predictor.parameters():
        parameter.data.abs_()
    predictor(inputs)[0][0, -1, 0].backward()
    assert int((inputs.grad[0, :, 0] != 0).sum()) == field


def test_blocks_cover_the_longest_sequence_and_one_fewer_would_not():
    for kernel_size in (2, 3, 5, 7):
        for length in range(2, 400):
            n = blocks_to_cover(length, kernel_size)
            assert receptive_field(kernel_size, n) >= length
            assert n == 1 or receptive_field(kernel_size, n - 1) < length


def test_attention_forgets_what_lies_beyond_its_context():
    entry = registry.entry("transformer")
    config = dataclasses.replace(entry.config, width=8, n_layers=1, context=4)
    predictor = registry.build(entry, RealInput(1, None, 8), Classes(2), True, config, 0).double().eval()
    inputs = torch.randn(1, 12, 1, dtype=torch.float64, requires_grad=True)
    outputs, state = predictor(inputs)
    outputs[0, -1, 0].backward()
    assert (inputs.grad[0, :, 0] != 0).tolist() == [False] * 8 + [True] * 4
    stepped, carried = [], None
    for t in range(12):
        step, carried = predictor(inputs[:, t : t + 1], carried)
        stepped.append(step)
    assert torch.allclose(torch.cat(stepped, 1), outputs, atol=1e-12)
    assert carried[1].shape[1] == state[1].shape[1] == 3


def test_recurrent_weights_are_orthogonal_gate_by_gate_and_the_forget_bias_is_one():
    entry = registry.entry("lstm")
    predictor = registry.build(entry, RealInput(2), Classes(2), True, RecurrentConfig(width=6), 0)
    layers = predictor.backbone.layers
    for gate in layers.weight_hh_l0.view(4, 6, 6):
        assert torch.allclose(gate @ gate.T, torch.eye(6), atol=1e-5)
    assert layers.bias_ih_l0.view(4, 6)[1].tolist() == [1.0] * 6
    assert layers.bias_hh_l0.abs().sum() == 0


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
