"""A model that goes wrong on command, for tests alone, and the least notebook that can run it.

``python faulty.py RESULTS NOTEBOOK FAULT …`` runs one trial per fault, as a coordinator that a test can kill.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch
from torch import Tensor

from benchmarks.execution import supervisor
from benchmarks.experiment import InvalidMetric
from benchmarks.fitting import Diverged, FitTimeout
from benchmarks.profiling import SHARE
from benchmarks.trial import Overrides, Trial, specify
from models.contract import Fit, ModelEntry, ParameterCounts, SelfFitting, State
from models.sequences import InputSpec, SequenceBatch, TargetSpec


@dataclass(frozen=True)
class FaultyConfig:
    """fault: what `Faulty.fit` does."""

    fault: str = "none"


class Faulty(SelfFitting):
    """Predicts zeros, if it gets that far."""

    causal = True

    def __init__(self, config: FaultyConfig, n_outputs: int) -> None:
        super().__init__()
        self.config, self.n_outputs = config, n_outputs

    def fit(self, train: SequenceBatch, validation: SequenceBatch, generator: torch.Generator) -> None:
        FAULTS[self.config.fault]()

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return torch.zeros(*inputs.shape[:2], self.n_outputs), ()

    def initial_state(self, batch_size: int) -> State:
        return ()

    def state_bytes(self, t: int) -> int:
        return 0

    def parameter_counts(self) -> ParameterCounts:
        return ParameterCounts(0)


def _nothing() -> None:
    """A trial without a fault."""


def _short() -> None:
    time.sleep(0.5)


def _error() -> None:
    raise ValueError("bad luck")


def _exit() -> None:
    sys.exit(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    while True:
        time.sleep(0.1)


def _deaf() -> None:
    """Hangs, and neither SIGINT nor SIGTERM ends it; nor its child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork()
    with Path("deaf.pids").open("a") as file:  # beside the notebook, for the test to look at
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(0.1)


def _memory() -> None:
    raise MemoryError


def _gpu_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def _no_gpu() -> None:
    raise RuntimeError(
        f"No CUDA GPUs are available, not {os.environ['CUDA_VISIBLE_DEVICES']}, of it {os.environ[SHARE]}"
    )


def _diverged() -> None:
    raise Diverged("the training loss was nan at step 7")


def _fit_timeout() -> None:
    raise FitTimeout("the fit reached its cap")


def _invalid_metric() -> None:
    raise InvalidMetric("accuracy is nan on the test split")


def _full_disk() -> None:
    raise OSError(28, "No space left on device")


def _loud() -> None:
    """Prints 200 MB, a tenth of it past Python, as a library in C does."""
    for _ in range(180):
        sys.stdout.write("x" * 999_999 + "\n")
    for _ in range(20):
        os.write(1, b"y" * 1_000_000)


def _flood() -> None:
    """Writes 200 MB past Python to standard error, as a library in C does, and crashes."""
    for _ in range(200):
        os.write(2, b"z" * 1_000_000)
    _segfault()


def _wordy() -> None:
    """A message of 50 MB, with what a terminal obeys at both ends, out of another one."""
    try:
        raise KeyError("k" * 50_000_000)
    except KeyError as error:
        raise ValueError("\x1b[31mbad luck\x07" + "m\n" * 25_000_000 + "the end\x1b[0m") from error


def _stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _keyboard() -> None:
    raise KeyboardInterrupt


def _removes_folder() -> None:
    shutil.rmtree(Path(f"/proc/{os.getppid()}/fd/2").readlink().parent)


def _primitive() -> None:
    raise RuntimeError("could not create a primitive")


def _leak() -> None:
    """Takes up to 3 GB, 50 MB at a time."""
    kept = []
    for _ in range(60):
        kept.append(b"x" * 50_000_000)
        time.sleep(0.05)
    time.sleep(60)


def _strays() -> None:
    """Leaves behind a program in a session of its own, and a copy of itself whose parent is gone."""
    started = subprocess.Popen(["sleep", "600"], start_new_session=True)
    pids = [started.pid]
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
        os.write(writing, str(pid).encode())
        os._exit(0)
    pids.append(int(os.read(reading, 20)))
    with Path("strays.pids").open("a") as file:  # beside the notebook, for the test to look at
        file.write("".join(f"{pid}\n" for pid in pids))


def _strays_killed() -> None:
    _strays()
    _worker_killed()


def _worker_killed() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


FAULTS = {
    "none": _nothing,
    "short": _short,
    "error": _error,
    "exit": _exit,
    "kill": _kill,
    "segfault": _segfault,
    "hang": _hang,
    "deaf": _deaf,
    "memory": _memory,
    "gpu_memory": _gpu_memory,
    "no_gpu": _no_gpu,
    "diverged": _diverged,
    "fit_timeout": _fit_timeout,
    "invalid_metric": _invalid_metric,
    "full_disk": _full_disk,
    "loud": _loud,
    "flood": _flood,
    "wordy": _wordy,
    "stopped": _stopped,
    "worker_killed": _worker_killed,
    "keyboard": _keyboard,
    "removes_folder": _removes_folder,
    "primitive": _primitive,
    "leak": _leak,
    "strays": _strays,
    "strays_killed": _strays_killed,
}


def _build(inputs: InputSpec, target: TargetSpec, causal: bool, config: FaultyConfig) -> Faulty:
    return Faulty(config, target.n_outputs)


def _refuses(inputs: InputSpec, target: TargetSpec, causal: bool) -> str | None:
    return "it would rather not" if not causal else None


ENTRY = ModelEntry(
    name="faulty",
    family="floor",
    config=FaultyConfig(),
    build=_build,
    fit=Fit.OWN,
    source="none",
    summary="goes wrong on command",
    refuses=_refuses,
)

NOTEBOOK = (
    """
task = None
task_parameters = None
model = None
model_config = None
fit = None
parameter_budget = None
seed = None
device = None
run_folder = None
code_digest = None
""",
    """
import json
import sys
import time
began = time.time()
from pathlib import Path
import psutil
import torch
from benchmarks.parameters import configure
from benchmarks.records import Result, Status, write_result
from benchmarks.tasks.registry import task as build_task
from models import registry
folder = Path(run_folder)
with (folder / "metrics.jsonl").open("a") as curve:
    _ = curve.write('{"step": 0, "validation": 0.25, "best": true}\\n')
entry, built = registry.entry(model), build_task(task, task_parameters)
predictor = entry.build(built.input, built.target, True, configure("model", entry.config, model_config))
""",
    "predictor.fit(None, None, None)",
    """
spec = json.loads((folder / "spec.json").read_text())
forked = "benchmarks.execution.preload" in sys.modules
times = {"made": psutil.Process().create_time(), "began": began, "ended": time.time()}
measured = {"threads": torch.get_num_threads(), "forked": int(forked), **{name: int(1e3 * at) for name, at in times.items()}}
numbers = {"test": {"accuracy": float(seed)}, "parameters": measured}
write_result(folder, Result(folder.name, spec, Status.OK, code_digest, **numbers))
""",
)


def install_plugin(folder: Path) -> None:
    """Writes the metadata of an installed package that registers `ENTRY`; the folder belongs on sys.path."""
    metadata = folder / "faulty-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rnnbench.models]\nfaulty = faulty:ENTRY\n")


def write_notebook(path: Path) -> Path:
    """`NOTEBOOK` as a file that papermill takes."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in NOTEBOOK])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    return path


def trial(fault: str, seed: int = 0) -> Trial:
    """A trial of the faulty model on a task that it accepts."""
    return specify("casino", "faulty", seed, None, "cpu", Overrides(model_config={"fault": fault}))


if __name__ == "__main__":
    results, notebook, *faults = sys.argv[1:]
    trials = [trial(fault, seed) for seed, fault in enumerate(faults)]
    summary = supervisor.run(
        trials, dict.fromkeys((trial.id for trial in trials), "digest"), Path(results), 2, notebook=Path(notebook)
    )
    sys.exit(128 + summary.stopped_by if summary.stopped_by else 0)
