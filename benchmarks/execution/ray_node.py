"""What is done on a node of a Ray cluster: it says what it would run a trial with, and runs one as a local supervisor does.

Nothing here imports Ray, and nothing is shared with the coordinator but the arguments and what is returned.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import provenance
from benchmarks.datasets import DataMissing
from benchmarks.execution import scratch, supervisor
from benchmarks.execution.memory import share_bytes
from benchmarks.execution.packing import pack
from benchmarks.parameters import InvalidParameter
from benchmarks.records import run_folder
from benchmarks.running import prepare
from benchmarks.trial import Trial


class Facts(NamedTuple):
    """What a machine would run trials with.

    versions: of `provenance.PACKAGES`. commit: of the checkout, None outside a repository. code: trial id → digest of its code.
    lacks: name of a task → which data set or optional package is missing for it.
    """

    versions: Mapping[str, str]
    commit: str | None
    code: Mapping[str, str]
    lacks: Mapping[str, str]


def facts(trials: Sequence[Trial]) -> Facts:
    """Those of this machine. Downloads data sets that are missing, and checks the others."""
    lacks = {}
    for trial in {trial.task: trial for trial in trials}.values():
        try:
            prepare([trial])
        except (DataMissing, InvalidParameter) as error:
            lacks[trial.task] = str(error)
    code = {trial.id: provenance.code_digest(trial.task, trial.model, trial.mode) for trial in trials}
    return Facts(provenance.versions(), provenance.git_commit(), code, lacks)


def refusals(trials: Sequence[Trial], ours: Facts, theirs: Facts) -> dict[str, str]:
    """Trial id → why the trial cannot run on a node, as the end of a sentence that begins with the node's name.

    ours: what the coordinator would run it with. theirs: what the node would.
    """
    for package, version in ours.versions.items():
        if theirs.versions.get(package) != version:
            found = f"has {package} {theirs.versions.get(package, 'not at all')}, the coordinator {version}"
            return dict.fromkeys((trial.id for trial in trials), f"{found}: install the same versions")
    refused = {}
    for trial in trials:
        if theirs.code.get(trial.id) != ours.code[trial.id]:
            commits = f"its commit is {theirs.commit or 'unknown'}, the coordinator's {ours.commit or 'unknown'}"
            refused[trial.id] = f"has other code for {trial.model} on {trial.task} ({commits}): check out the same code"
        elif trial.task in theirs.lacks:
            refused[trial.id] = f"cannot run {trial.task}: {theirs.lacks[trial.task]}"
    return refused


def run_trial(trial: Trial, code_digest: str) -> bytes:
    """Runs a trial on this machine and returns its packed run folder, whatever came of it.

    The process keeps its fork server, so that the kernels of later trials are forked at once.
    Raises StorageError where this machine's disk is full, RuntimeError where a signal ended the trial before it began.
    """
    with tempfile.TemporaryDirectory(prefix="node-", dir=scratch.folder()) as folder, _like_a_command():
        results = Path(folder)
        # Ray places other trials beside this one, as many as there are cores.
        share = share_bytes(supervisor.cores())
        supervisor.run([trial], {trial.id: code_digest}, results, workers=1, memory_bytes=share)
        if not run_folder(results, trial.id).exists():
            raise RuntimeError("the trial was stopped before it began")
        return pack(run_folder(results, trial.id))


@contextmanager
def _like_a_command() -> Iterator[None]:
    """A Ray worker blocks the signal that interrupts a trial past its deadline, and its children would inherit that."""
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
