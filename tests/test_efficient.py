"""The scan against the recurrence it stands for and against the log-space scan; the layers against their papers' equations."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import checking
from models import registry, scan
from models.efficient import LinearRecurrentUnit, LRUConfig, Minimal, MinimalConfig
from models.scan import gated_scan, linear_scan
from models.sequences import Classes, RealInput

NAMES = ("mingru", "minlstm", "lru")


def step_by_step(coefficients, inputs, state):
    states = []
    for coefficient, value in zip(coefficients, inputs, strict=True):
        state = coefficient * state + value
        states.append(state)
    return torch.stack(states)


def in_log_space(log_coefficients, log_values):
    """Heinsen 2023: log h_t = A_t + logcumsumexp(log b - A)_t, A the running sum of log a; log_values begin with log h_0."""
    sums = F.pad(log_coefficients.cumsum(0), (0, 0, 0, 0, 1, 0))
    return (sums + (log_values - sums).logcumsumexp(0)).exp()[1:]


def random_case(generator, dtype=torch.float64, longest=70):
    """a with |a| ≤ 1, some of it exactly 0 or 1; b; h_0; of random shape."""
    n_steps, n, width = (int(torch.randint(1, high, (), generator=generator)) for high in (longest, 4, 4))
    shape = (n_steps, n, width)
    sizes = torch.rand(shape, generator=generator, dtype=torch.float64)
    sizes = torch.where(sizes < 0.1, 0.0, torch.where(sizes > 0.8, 1.0, sizes))
    signs = torch.randn(shape, generator=generator, dtype=dtype).sgn()
    inputs = torch.randn(shape, generator=generator, dtype=dtype)
    return sizes * signs, inputs, torch.randn(n, width, generator=generator, dtype=dtype)


def assert_same_with_gradients(ours, theirs, case, generator):
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn(ours.shape, generator=generator, dtype=ours.dtype)
    gradients = (torch.autograd.grad((states * weights).abs().square().sum(), case) for states in (ours, theirs))
    for our, their in zip(*gradients, strict=True):
        assert torch.allclose(our, their, rtol=1e-10, atol=1e-10 * (1 + float(their.abs().max())))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_scan_and_its_gradient_are_those_of_the_recurrence_step_by_step(dtype):
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        case = [part.requires_grad_() for part in random_case(generator, dtype)]
        assert_same_with_gradients(linear_scan(*case), step_by_step(*case), case, generator)


def test_the_gated_scan_and_its_gradient_are_those_of_the_recurrence_step_by_step():
    generator = torch.Generator().manual_seed(2)
    for _ in range(200):
        _, candidates, start = random_case(generator)
        logits = 3 * torch.randn(candidates.shape, generator=generator, dtype=torch.float64)
        case = [part.requires_grad_() for part in (logits, candidates, start)]
        update = logits.sigmoid()
        assert_same_with_gradients(
            gated_scan(*case), step_by_step(1 - update, update * candidates, start), case, generator
        )


def test_the_scan_is_the_log_space_scan_where_that_is_defined():
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        _, inputs, start = (part.abs() for part in random_case(generator))
        gates = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
        expected = in_log_space(F.logsigmoid(gates), torch.cat([start[None], inputs]).log())
        assert torch.allclose(linear_scan(gates.sigmoid(), inputs, start), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n_steps", [1, 2, 17, 22])
def test_the_gradient_of_the_scan_agrees_with_finite_differences(n_steps, dtype):
    torch.manual_seed(n_steps)
    one_for_all_steps = torch.randn(2, dtype=dtype).sgn() * 0.9
    case = (one_for_all_steps, torch.randn(n_steps, 2, 2, dtype=dtype), torch.randn(2, 2, dtype=dtype))
    case = tuple(part.requires_grad_() for part in case)
    assert torch.autograd.gradcheck(lambda a, b, start: linear_scan(a.expand_as(b), b, start), case)


def test_coefficients_whose_product_underflows_forget_and_make_nothing_else():
    inputs, start = torch.randn(4000, 1, 3), torch.full((1, 3), 1e30)
    for coefficient in (0.0, 1e-8, 1e-3, 0.5):
        coefficients = torch.full_like(inputs, coefficient)
        states, expected = linear_scan(coefficients, inputs, start), step_by_step(coefficients, inputs, start)
        assert torch.allclose(states[-100:], expected[-100:], rtol=1e-5, atol=1e-6)
        assert bool(states.isfinite().all())


class Counted(TorchDispatchMode):
    """Counts the operations that write numbers: what a GPU would launch a kernel for."""

    n = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.n += any(name in str(operation) for name in ("addcmul", "mul", "copy", "clone"))
        return operation(*args, **kwargs or {})


@pytest.mark.parametrize("n_steps", [50, 1024, 1087, 4096])
def test_forward_and_backward_take_about_four_operations_for_each_of_the_root_of_the_steps(n_steps):
    inputs = torch.randn(n_steps, 1, 2, requires_grad=True)
    coefficients, start = torch.rand(n_steps, 1, 2, requires_grad=True), torch.zeros(1, 2)
    with Counted() as forward:
        states = linear_scan(coefficients, inputs, start)
    with Counted() as backward:
        states.sum().backward()
    assert forward.n <= 6 * math.sqrt(n_steps) + 8
    assert backward.n <= 6 * math.sqrt(n_steps) + 12


def layer_case(layer, n_steps=40):
    torch.manual_seed(0)
    layer = layer.double()
    inputs = torch.randn(n_steps, 2, layer.state_shape[0], dtype=torch.float64)
    return layer, inputs, torch.rand(2, *layer.state_shape, dtype=torch.float64)


def test_the_mingru_follows_its_equations():
    layer, inputs, state = layer_case(Minimal(3, 1, MinimalConfig()))
    outputs, _ = layer(inputs, state)
    for x, output in zip(inputs, outputs, strict=True):
        z, c = (x @ linear.weight.T + linear.bias for linear in (layer.gates[0], layer.candidate))
        z = 1 / (1 + torch.exp(-z))
        state = (1 - z) * state + z * c
        assert torch.allclose(output, state, rtol=1e-10, atol=1e-10)


def test_the_minlstm_follows_its_equations():
    layer, inputs, state = layer_case(Minimal(3, 2, MinimalConfig()))
    outputs, _ = layer(inputs, state)
    for x, output in zip(inputs, outputs, strict=True):
        f, i, c = (x @ linear.weight.T + linear.bias for linear in (*layer.gates, layer.candidate))
        f, i = 1 / (1 + torch.exp(-f)), 1 / (1 + torch.exp(-i))
        state = f / (f + i) * state + i / (f + i) * c
        assert torch.allclose(output, state, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_gates", [1, 2])
def test_with_positive_candidates_the_minimal_layers_are_the_paper_s_in_log_space(n_gates):
    layer, inputs, start = layer_case(Minimal(3, n_gates, MinimalConfig(candidate="positive")))
    outputs, _ = layer(inputs, start)
    *gates, candidate = (linear(inputs) for linear in (*layer.gates, layer.candidate))
    shut = gates[0] if n_gates == 1 else F.softplus(-gates[0]) - F.softplus(-gates[1])  # the paper's "diff"
    log_kept, log_updated = -F.softplus(shut), -F.softplus(-shut)
    log_candidate = torch.where(candidate >= 0, (F.relu(candidate) + 0.5).log(), -F.softplus(-candidate))
    values = torch.cat([start.log()[None], log_updated + log_candidate])
    assert torch.allclose(outputs, in_log_space(log_kept, values), rtol=1e-10, atol=0)


def test_gates_that_are_all_shut_leave_the_minlstm_finite():
    layer, inputs, start = layer_case(Minimal(3, 2, MinimalConfig()))
    for gate in layer.gates:
        torch.nn.init.constant_(gate.bias, -2000.0)
    outputs, _ = layer(inputs, start)
    outputs.sum().backward()
    assert bool(outputs.isfinite().all()) and bool(layer.gates[0].weight.grad.isfinite().all())


def test_the_lru_follows_its_equations_in_complex_numbers():
    layer, inputs, state = layer_case(LinearRecurrentUnit(3, LRUConfig()))
    outputs, states = layer(inputs, state)
    eigenvalues = torch.exp(-layer.log_nu.exp() + 1j * layer.log_theta.exp())
    into = torch.complex(layer.project_in.weight[0::2], layer.project_in.weight[1::2])
    out = torch.complex(layer.project_out.weight[:, 0::2], -layer.project_out.weight[:, 1::2])
    state = torch.view_as_complex(state)
    for x, output, pairs in zip(inputs, outputs, states, strict=True):
        state = eigenvalues * state + layer.log_gamma.exp() * (x.to(into.dtype) @ into.T)
        value, gate = layer.glu(F.gelu((state @ out.T).real + layer.feedthrough * x)).chunk(2, dim=-1)
        assert torch.allclose(output, value * gate.sigmoid(), rtol=1e-10, atol=1e-10)
        assert torch.allclose(torch.view_as_complex(pairs), state, rtol=1e-10, atol=1e-10)


def test_the_eigenvalues_of_the_lru_begin_on_the_ring_and_white_noise_gives_states_of_variance_one():
    torch.manual_seed(0)
    layer = LinearRecurrentUnit(400, LRUConfig(r_min=0.5, r_max=0.9, max_phase=1.0))
    radius, phase = torch.exp(-layer.log_nu.exp()).detach(), layer.log_theta.exp().detach()
    assert 0.5 <= float(radius.min()) < 0.52 and 0.88 < float(radius.max()) <= 0.9
    assert float(radius.square().mean()) == pytest.approx((0.5**2 + 0.9**2) / 2, rel=0.03)  # uniform in area
    assert float(phase.min()) > 0 and 0.95 < float(phase.max()) <= 1.0
    assert float(phase.mean()) == pytest.approx(0.5, abs=0.04)
    with torch.no_grad():
        _, states = layer(torch.randn(100, 8, 400), torch.zeros(8, 400, 2))
    assert float(states[60:].square().sum(-1).mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_holds_where_the_scan_works_in_chunks(name, monkeypatch):
    monkeypatch.setattr(scan, "SHORT", 1)  # the sequences of the check are shorter than those that are cut
    kinds = [kind for kind in checking.KINDS if kind.causal][:1]
    monkeypatch.setattr(checking, "KINDS", kinds)
    assert not [finding for finding in checking.check(name) if not finding.passed]


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_steps_in_pieces_give_what_they_give_at_once_whatever_the_lengths(name):
    entry = registry.entry(name)
    config = dataclasses.replace(entry.config, width=4)
    predictor = registry.build(entry, RealInput(2, None, 4), Classes(3), True, config, 0).double().eval()
    inputs = torch.randn(3, 1000, 2, dtype=torch.float64)
    lengths = torch.tensor([1000, 613, 256])
    whole, after = predictor(inputs, None, lengths)
    state, parts = None, []
    for start in range(0, 1000, 256):
        outputs, state = predictor(inputs[:, start : start + 256], state, (lengths - start).clamp(0, 256))
        parts.append(outputs)
    joined = torch.cat(parts, 1)
    for i, n in enumerate(lengths.tolist()):
        assert torch.allclose(joined[i, :n], whole[i, :n], rtol=1e-10, atol=1e-10)
    assert torch.allclose(state[0], after[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (MinimalConfig, {"width": 0}, "width must be at least 1"),
        (MinimalConfig, {"n_layers": 0}, "n_layers must be at least 1"),
        (LRUConfig, {"dropout": 1.0}, "dropout is a share"),
        (LRUConfig, {"r_min": 0.9, "r_max": 0.8}, "r_min < r_max"),
        (LRUConfig, {"r_max": 1.0}, "r_max < 1"),
        (LRUConfig, {"max_phase": 7.0}, "max_phase is an angle"),
    ],
)
def test_an_option_out_of_range_is_refused_with_the_reason(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
