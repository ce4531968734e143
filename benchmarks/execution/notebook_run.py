"""The notebook of one trial, executed by papermill in a kernel; how that ended, as a status and a reason."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
import zmq
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from benchmarks.execution.capped_output import CappedLog
from benchmarks.execution.memory import address_space_limit, oom_kills
from benchmarks.execution.waiting_kernel import CAPPED, WaitingKernel, manager_class
from benchmarks.execution.worker import Job, ending, last_lines
from benchmarks.experiment import InvalidMetric
from benchmarks.fitting import Diverged, FitTimeout
from benchmarks.records import Status, promote
from benchmarks.trial import NoGPU

ENGINE = "rnnbench"
CAPPED_KERNEL = "--IPKernelApp.kernel_class=benchmarks.execution.capped_output.CappedKernel"
"""The option by which a kernel of ours bounds what an exception says."""

_STATUS_OF: dict[str, Status] = {
    kind.__name__: status
    for kind, status in (
        (Diverged, Status.DIVERGED),
        (FitTimeout, Status.TIMEOUT),
        (InvalidMetric, Status.INVALID_METRIC),
        (MemoryError, Status.OOM_CPU),
        (torch.OutOfMemoryError, Status.OOM_GPU),
        (NoGPU, Status.INFRA_ERROR),
    )
}
"""By name: an exception comes out of the kernel as text."""

_STATUS_SAID: tuple[tuple[str, Status], ...] = (
    (r"DefaultCPUAllocator: can't allocate memory", Status.OOM_CPU),
    # What a model asks a GPU for and must not: an index out of range, most often.
    (r"device-side assert", Status.ERROR),
    (r"CUDA out of memory|CUDA error: out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED", Status.OOM_GPU),
    (r"CUDA error|CUDA driver error|CUDA driver initialization failed|CUDA unknown error", Status.INFRA_ERROR),
    (r"No CUDA GPUs are available|cudaGetDeviceCount|NVIDIA driver", Status.INFRA_ERROR),
    (r"(CUBLAS|CUDNN)_STATUS_(NOT_INITIALIZED|EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)", Status.INFRA_ERROR),
    (r"Cannot re-initialize CUDA|Torch not compiled with CUDA", Status.INFRA_ERROR),
)
"""What torch says of memory and of GPUs, in the order in which to look, for it raises plain RuntimeErrors."""

WANT_OF_MEMORY = (
    r"could not create a (primitive|memory)|std::bad_alloc|[Cc]annot allocate memory|can't allocate memory|Unable to allocate"
    r"|failed to map segment|can't start new thread|Resource temporarily unavailable"
)
"""What libraries say where the address space is limited and spent."""

_SAID_BY = frozenset(
    {"RuntimeError", "AcceleratorError", "OutOfMemoryError", "AssertionError", "DeferredCudaCallError"}
)


class _Progress(NotebookExecutionManager):
    """Saves the notebook before each cell of code, now and then within, and at the end. papermill saves it after each cell
    too, and around those of text: nothing more to see, for a quarter of what a short trial takes."""

    saves = True

    def cell_start(self, cell: nbformat.NotebookNode, cell_index: int | None = None, **kwargs: Any) -> None:
        self.saves = cell.cell_type == "code"
        super().cell_start(cell, cell_index, **kwargs)

    def cell_complete(self, cell: nbformat.NotebookNode, cell_index: int | None = None, **kwargs: Any) -> None:
        self.saves = False
        super().cell_complete(cell, cell_index, **kwargs)
        self.saves = True

    def save(self, **kwargs: Any) -> None:
        if self.saves:
            super().save(**kwargs)


class _Engine(NBClientEngine):
    """papermill's own, with our `_Progress`."""

    @classmethod
    def execute_notebook(
        cls,
        nb: nbformat.NotebookNode,
        kernel_name: str,
        output_path: str,
        progress_bar: bool,
        log_output: bool,
        **kwargs: Any,
    ) -> nbformat.NotebookNode:
        progress = _Progress(nb, output_path, log_output, progress_bar)
        progress.notebook_start()
        try:
            cls.execute_managed_notebook(progress, kernel_name, log_output=log_output, **kwargs)
        finally:
            progress.notebook_complete()
        return progress.nb


papermill_engines.register(ENGINE, _Engine)


def execute(job: Job, kernel: WaitingKernel, log: CappedLog) -> tuple[Status, str] | None:
    """Runs the notebook; None where it wrote its result itself. log: where the kernel's crash report goes."""
    target = job.folder / "notebook.ipynb"
    # A new interpreter reads the code anew, which may have changed since the run began: it finds the digest itself.
    code_digest = job.code_digest if job.forked else ""
    parameters = asdict(job.trial) | {"run_folder": str(job.folder), "code_digest": code_digest}
    # The notebook says which mode it is by itself, and finds the machine that it runs on.
    for name in ("mode", "machine", *(() if job.trial.timing else ("timing",))):
        parameters.pop(name)
    killed_before = oom_kills()
    try:
        papermill.execute_notebook(
            _literal(job.notebook),
            _literal(target),
            parameters=parameters,
            engine_name=ENGINE,
            kernel_name="python3",
            language="python",
            cwd=job.notebook.parent,
            progress_bar=False,
            km=manager_class(kernel, job.scratch / f"{os.getpid()}.json")(),
            extra_arguments=[CAPPED, CAPPED_KERNEL],
        )
    except PapermillExecutionError as error:
        sys.stderr.write(str(error))  # into stderr.log
        sys.stderr.flush()
        return _status(error, job.folder)
    except DeadKernelError:
        log.finish()
        status, reason = _death(kernel, oom_kills() - killed_before)
        _mark_unfinished(target, reason)
        return status, _with_log(reason, job.folder)
    except (RuntimeError, zmq.ZMQError) as error:
        log.finish()
        return Status.INFRA_ERROR, _with_log(f"the kernel did not start: {error}", job.folder)
    promote(job.folder)
    if not (job.folder / "result.json").exists():
        return Status.INCOMPLETE, "the notebook ended without writing a result"
    return None


def _literal(path: Path) -> str:
    """papermill fills braces in a path with parameters; a folder's name may hold some."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _status(error: PapermillExecutionError, folder: Path) -> tuple[Status, str]:
    """An exception in a cell, by its class's name and the message."""
    message = error.evalue.strip()
    reason = f"{error.ename}: {message} (cell {error.exec_count} of notebook.ipynb)"
    if _status_of(error.ename, message) == Status.OOM_CPU and (limit := address_space_limit()):
        reason += f"; the address space is limited to {limit / 1e9:.1f} GB (ulimit -v)"
    if error.ename == "OSError" and message.startswith((f"[Errno {errno.ENOSPC}]", f"[Errno {errno.EROFS}]")):
        raise OSError(errno.ENOSPC, message)
    return _status_of(error.ename, message), reason


def _status_of(name: str, message: str) -> Status:
    """The status of an exception by its class's name and what it says."""
    if name in _STATUS_OF:
        return _STATUS_OF[name]
    if address_space_limit() and re.search(WANT_OF_MEMORY, message):
        return Status.OOM_CPU
    said = (status for pattern, status in _STATUS_SAID if name in _SAID_BY and re.search(pattern, message))
    return next(said, Status.ERROR)


def _death(kernel: WaitingKernel, n_oom_kills: int) -> tuple[Status, str]:
    """What a dead kernel died of. n_oom_kills: how many processes the system has killed meanwhile for want of memory."""
    exitcode = kernel.process.exitcode
    if n_oom_kills and exitcode in (None, -signal.SIGKILL):
        return Status.OOM_CPU, "the system ran out of memory and killed the kernel"
    return Status.KERNEL_DIED, "the kernel died" + ("" if exitcode is None else f": {ending(exitcode)}")


def _with_log(reason: str, folder: Path) -> str:
    log = last_lines(folder / "stderr.log")
    return f"{reason}; stderr.log ends: {log}" if log else reason


def _mark_unfinished(path: Path, reason: str) -> None:
    """Makes the saved notebook honest. papermill 2.6 marks cells "completed" that never ran when a kernel dies."""
    notebook = nbformat.read(path, as_version=4)
    begun = [cell for cell in notebook.cells if cell.metadata.get("papermill", {}).get("start_time")]
    for cell in notebook.cells:
        if not cell.metadata.get("papermill", {}).get("start_time"):
            cell.metadata.setdefault("papermill", {})["status"] = "pending"
    if begun:
        begun[-1].metadata.papermill.update(status="failed", exception=True)
        if begun[-1].cell_type == "code":
            begun[-1].outputs.append(nbformat.v4.new_output("stream", name="stderr", text=f"{reason} in this cell\n"))
    notebook.metadata.setdefault("papermill", {})["exception"] = True
    nbformat.write(notebook, path)
