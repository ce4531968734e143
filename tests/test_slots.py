"""Places for trials on GPUs, what is asked of GPUs and by whom, and what a full or broken one is called."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import profiling
from benchmarks.execution import slots
from benchmarks.execution.notebook_run import _status_of
from benchmarks.execution.slots import Slot, Slots, default_workers, visible_gpus
from benchmarks.profiling import SHARE, occupy, peak_told
from benchmarks.records import Status
from benchmarks.trial import NoGPU, resolve_device

GIB = 1 << 30


@given(st.integers(1, 4), st.integers(1, 40), st.data())
def test_places_are_spread_evenly_and_their_shares_never_exceed_a_gpu(n_gpus: int, n: int, data: st.DataObject) -> None:
    made, held = Slots([str(i) for i in range(n_gpus)], n), list[Slot]()
    for _ in range(60):
        if held and (len(held) == n or data.draw(st.booleans())):
            made.release(held.pop(data.draw(st.integers(0, len(held) - 1))))
        else:
            before = dict(made.taken)
            slot = made.acquire()
            assert slot is not None and before[slot.gpu] == min(before.values())
            held.append(slot)
        shares = {gpu: sum(slot.share for slot in held if slot.gpu == gpu) for gpu in made.taken}
        assert max(shares.values()) <= 1 + 1e-9


def test_a_trial_that_runs_alone_has_the_whole_gpu() -> None:
    assert Slots(["0", "1"], 1).acquire() == Slot("0", 1.0)


def test_without_gpus_there_are_no_places_and_none_is_needed() -> None:
    made = Slots([], 3)
    assert made.acquire() is None
    made.release(None)


def test_more_trials_than_places_are_refused() -> None:
    made = Slots(["0"], 2)
    assert [made.acquire(), made.acquire()] == [Slot("0", 0.5)] * 2
    with pytest.raises(RuntimeError, match="all 2 places"):
        made.acquire()


@pytest.mark.parametrize(
    ("cores", "gpus", "memory", "expected"),
    [
        (8, [], None, 8),
        (16, ["0"], 139 * GIB, 16),
        (64, ["0"], 139 * GIB, slots.MOST),
        (16, ["0"], 24 * GIB, 6),
        (16, ["0"], 2 * GIB, 1),
        (16, ["0", "1"], 139 * GIB, 16),
        (2, ["0", "1", "2", "3"], 80 * GIB, 4),
        (16, ["0"], None, 16),
    ],
)
def test_as_many_trials_run_at_a_time_as_cores_and_memory_bear(
    cores: int, gpus: list[str], memory: int | None, expected: int
) -> None:
    assert default_workers(cores, gpus, memory) == expected


@pytest.mark.parametrize(
    ("written", "n", "expected"),
    [(None, 2, ["0", "1"]), ("", 0, []), ("3, 5", 2, ["3", "5"]), ("GPU-a,GPU-b,7", 2, ["GPU-a", "GPU-b"])],
)
def test_gpus_keep_the_names_that_the_user_gave_them(
    monkeypatch: pytest.MonkeyPatch, written: str | None, n: int, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if written is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", written)
    assert visible_gpus() == expected


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A GPU of 100 GiB, as far as what is asked of it here; the fractions of its memory that were set."""
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(total_memory=100 * GIB)
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: fractions.append(fraction)
    )
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.25)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * GIB // 2)
    return fractions


@pytest.mark.parametrize(("n", "bounded"), [(1, False), (4, True), (16, True)])
def test_what_all_trials_may_hold_and_their_contexts_fit_into_the_gpu(
    monkeypatch: pytest.MonkeyPatch, gpu: list[float], n: int, bounded: bool
) -> None:
    slot = Slots(["2"], n).acquire()
    assert slot is not None
    for name, value in slot.environment.items():
        monkeypatch.setenv(name, value)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    occupy(torch.device("cuda"))
    assert len(gpu) == bounded
    for fraction in gpu:
        assert 0.9 < n * (fraction + profiling.CONTEXT_BYTES / (100 * GIB)) <= 1 + 1e-9


def test_nothing_is_bounded_on_the_cpu_or_for_a_trial_by_hand(
    monkeypatch: pytest.MonkeyPatch, gpu: list[float]
) -> None:
    monkeypatch.setenv(SHARE, "0.25")
    occupy(torch.device("cpu"))
    monkeypatch.delenv(SHARE)
    occupy(torch.device("cuda"))
    assert gpu == []


def test_the_reason_of_full_memory_carries_the_peak_and_the_limit_of_the_slot(gpu: list[float]) -> None:
    @peak_told()
    def fit() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(torch.OutOfMemoryError) as raised:
        fit()
    assert str(raised.value) == (
        "CUDA out of memory. Tried to allocate 2.00 GiB. The trial held 1.50 GiB at most, of 25.00 GiB that it may hold."
    )
    assert _status_of("OutOfMemoryError", str(raised.value)) is Status.OOM_GPU


@pytest.mark.parametrize(
    ("name", "message", "status"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 MiB.", Status.OOM_GPU),
        ("AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors might be …", Status.OOM_GPU),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", Status.OOM_GPU),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", Status.OOM_GPU),
        ("AcceleratorError", "CUDA error: device-side assert triggered\nCUDA kernel errors …", Status.ERROR),
        ("RuntimeError", "CUDA error: device-side assert triggered", Status.ERROR),
        ("AcceleratorError", "CUDA error: unspecified launch failure", Status.INFRA_ERROR),
        ("AcceleratorError", "CUDA error: uncorrectable ECC error encountered", Status.INFRA_ERROR),
        ("RuntimeError", "CUDA error: no kernel image is available for execution on the device", Status.INFRA_ERROR),
        ("RuntimeError", "CUDA driver error: unknown error", Status.INFRA_ERROR),
        ("RuntimeError", "No CUDA GPUs are available", Status.INFRA_ERROR),
        ("RuntimeError", "CUDA driver initialization failed, you might not have a CUDA gpu.", Status.INFRA_ERROR),
        (
            "RuntimeError",
            "CUDA unknown error - this may be due to an incorrectly set up environment",
            Status.INFRA_ERROR,
        ),
        (
            "RuntimeError",
            "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
            Status.INFRA_ERROR,
        ),
        ("RuntimeError", "Found no NVIDIA driver on your system.", Status.INFRA_ERROR),
        ("RuntimeError", "The NVIDIA driver on your system is too old (found version 11040).", Status.INFRA_ERROR),
        ("RuntimeError", "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`", Status.INFRA_ERROR),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", Status.INFRA_ERROR),
        ("RuntimeError", "Cannot re-initialize CUDA in forked subprocess.", Status.INFRA_ERROR),
        ("AssertionError", "Torch not compiled with CUDA enabled", Status.INFRA_ERROR),
        ("NoGPU", "device: cuda was asked for, but torch sees no GPU; use auto or cpu", Status.INFRA_ERROR),
        ("CaptureFailed", "the step cannot be captured (CUDA error: operation not permitted); …", Status.ERROR),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", Status.ERROR),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)", Status.ERROR),
        ("ValueError", "CUDA error: says my own code", Status.ERROR),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", Status.OOM_CPU),
    ],
)
def test_a_full_gpu_is_a_models_and_a_broken_or_missing_one_is_not(name: str, message: str, status: Status) -> None:
    assert _status_of(name, message) is status


def test_a_gpu_that_is_asked_for_and_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoGPU, match="use auto or cpu"):
        resolve_device("cuda")


FORK_SERVER = """
import os, sys, traceback
import torch

touched = []
def record(*arguments):
    touched.append("".join(traceback.format_stack(limit=4)))
    return 0

# For these two, torch is one with CUDA on a machine with a GPU: the driver's library may say so, CUDA must not be started.
ASKING = (torch.cuda.is_available.__code__, torch.cuda.device_count.__code__)
torch.cuda._is_compiled = lambda: sys._getframe(1).f_code in ASKING
torch.cuda._device_count_nvml = lambda: 1
torch._C._cuda_getDeviceCount = torch.cuda._lazy_init = record
import benchmarks.execution.preload

assert not touched, touched[0]
assert not torch.cuda.is_initialized()
# What a package asks when it is imported, and a plugged-in model with it.
assert torch.cuda.is_available() and torch.cuda.device_count() == 1 and not touched
child = os.fork()
if child == 0:
    os._exit(torch.cuda._is_in_bad_fork())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_trials_in_turn_have_the_whole_of_one_gpu_each() -> None:
    slots = Slots(["0", "1"], 3, in_turn=True)
    assert [slots.acquire() for _ in range(3)] == [Slot("0", 1.0)] * 3
    assert [Slots([], 3, in_turn=True).acquire()] == [None]


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
def test_the_fork_server_leaves_gpus_alone_so_that_its_copies_can_use_them() -> None:
    ended = subprocess.run([sys.executable, "-c", FORK_SERVER], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
