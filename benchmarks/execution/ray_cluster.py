"""Trials on the nodes of a Ray cluster (https://docs.ray.io): one Ray task per trial, whose run folder comes back packed.

The coordinator places trials itself, one per core or GPU, because a node must first be asked what it would run them with:
other versions or other code would make another experiment of the same trial. A node that broke off a trial is asked again
before it gets another one. Ray is left to move bytes, and to notice what has died.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.execution import ray_node
from benchmarks.execution.order import Queue
from benchmarks.execution.packing import Unusable, unpack
from benchmarks.execution.ray_connection import connected
from benchmarks.execution.supervisor import TRIES, ClusterError, Rows
from benchmarks.records import Result, Status
from benchmarks.trial import Trial

STOP_S = 10.0
"""How long a run that is stopped waits for the nodes to say that nothing runs there any more."""

# No retries of Ray's own: it does not know which nodes may run a trial, nor which endings are a trial's own fault.
_ASK = ray.remote(num_cpus=0, max_retries=0)(ray_node.facts)
_RUN = {
    "cpu": ray.remote(num_cpus=1, max_retries=0)(ray_node.run_trial),
    # One call per process: its fork server would go on with the GPU that the first call was given.
    "cuda": ray.remote(num_cpus=1, num_gpus=1, max_retries=0, max_calls=1)(ray_node.run_trial),
}


def work(
    rows: Rows,
    trials: Sequence[Trial],
    address: str | None,
    workers: int | None,
    say: Callable[[str], None],
    earlier: Iterable[tuple[Trial, Result]] = (),
) -> None:
    """Runs the trials and adds their rows.

    address: of a cluster's head, host:port; None: what RAY_ADDRESS says, or the cluster that runs on this machine, or else one
    that is started here for this run. workers: trials at a time; None: one per core, or GPU, of the cluster. say: is told, in
    one sentence each, of nodes that cannot be used and trials that begin again. earlier: results whose data others must share.

    Raises ClusterError.
    """
    if not trials:
        return
    cluster = _Cluster(rows, trials, workers, say, ray_node.facts(trials), Queue(trials, rows.expected))
    for trial, result in earlier:
        cluster.check_data(trial, result, "in an earlier run")
    with connected(address):
        cluster.work()


@dataclass(eq=False)
class _Node:
    """A node of the cluster, and what it may be given.

    name: as in "on <name>". slots: device → trials at a time. busy: device → trials that run there. answer: that to the
    question what it would run trials with, while it is awaited. refused: what follows from it, trial id → why the trial cannot
    run there; None: not known.
    """

    id: str
    name: str
    slots: dict[str, int]
    busy: Counter[str] = field(default_factory=Counter)
    answer: ray.ObjectRef | None = None
    n_unanswered: int = 0
    refused: dict[str, str] | None = None

    def takes(self, trial: Trial) -> bool:
        # Every trial takes a core; one on a GPU takes that too.
        has_room = self.busy.total() < self.slots["cpu"] and self.busy[trial.device] < self.slots[trial.device]
        return has_room and self.refused is not None and trial.id not in self.refused

    def pinned(self) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(self.id, soft=False)


class _Running(NamedTuple):
    trial: Trial
    node: _Node


@dataclass
class _Cluster:
    """A run on a cluster.

    facts: the coordinator's. queue: trials that do not run. nodes: those alive, by id. lost_on: trial id → nodes that broke it
    off. drawn: task and seed → digest of the data and where they were drawn first. said: sentences that need no second telling.
    """

    rows: Rows
    trials: Sequence[Trial]
    workers: int | None
    say: Callable[[str], None]
    facts: ray_node.Facts
    queue: Queue
    nodes: dict[str, _Node] = field(default_factory=dict)
    running: dict[ray.ObjectRef, _Running] = field(default_factory=dict)
    lost_on: dict[str, list[_Node]] = field(default_factory=dict)
    drawn: dict[str, tuple[str, str]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    def work(self) -> None:
        try:
            while (self.running or (self.queue and not self.rows.stopped_by)) and not self.rows.kill:
                self._look_around()
                if not self.rows.stopped_by:
                    self._place()
                awaited = [*self.running, *(node.answer for node in self.nodes.values() if node.answer is not None)]
                if not awaited:
                    raise ClusterError(self._nobody(next(iter(self.queue))))
                for ref in ray.wait(awaited, timeout=0.2)[0]:
                    if ref in self.running:
                        self._collect(ref)
        finally:
            for ref in self.running:
                ray.cancel(ref, force=True)
            if self.running:
                ray.wait(list(self.running), num_returns=len(self.running), timeout=STOP_S)
        for running in self.running.values():
            self.rows.record(running.trial, Status.INTERRUPTED, "the run was stopped")

    def _look_around(self) -> None:
        """Finds nodes that came or went; asks those that are to be asked, and reads the answers that are here."""
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        for gone in self.nodes.keys() - alive.keys():
            self._tell(f"{self.nodes.pop(gone).name} was lost")
        for name in alive.keys() - self.nodes.keys():
            resources = alive[name]["Resources"]
            if resources.get("CPU"):
                slots = {"cpu": int(resources["CPU"]), "cuda": int(resources.get("GPU", 0))}
                self.nodes[name] = _Node(name, f"node {alive[name]['NodeManagerHostname']} ({name[:8]})", slots)
        for node in self.nodes.values():
            if node.answer is not None:
                if ray.wait([node.answer], timeout=0)[0]:
                    self._read_answer(node, node.answer)
            elif node.refused is None:
                node.answer = _ASK.options(scheduling_strategy=node.pinned()).remote(self.trials)

    def _read_answer(self, node: _Node, answer: ray.ObjectRef) -> None:
        node.answer = None
        try:
            node.refused = ray_node.refusals(self.trials, self.facts, ray.get(answer))
        except RayError as error:
            node.n_unanswered += 1
            if not isinstance(error, RayTaskError) and node.n_unanswered < TRIES:
                return  # it is asked again, unless it has died
            reason = f"cannot be asked what it would run trials with: {_cause(error)}"
            node.refused = dict.fromkeys((trial.id for trial in self.trials), reason)
        for trial in self.trials:
            if not node.slots[trial.device]:
                node.refused.setdefault(trial.id, "has no GPU that Ray knows of")
        if node.refused:
            reason = next(iter(node.refused.values()))
            self._tell(f"{node.name} {reason}; {len(node.refused)} of {len(self.trials)} trials do not run there")

    def _place(self) -> None:
        """Gives nodes what they have room for, in turn, so that few trials spread over many nodes."""
        placed = True
        while placed:
            placed = False
            for node in self.nodes.values():
                if self.workers is not None and len(self.running) >= self.workers:
                    return
                # A trial that this node broke off comes last: another node may take it meanwhile.
                trial = self.queue.take(partial(self._suits, node)) or self.queue.take(node.takes)
                if trial is not None:
                    node.busy[trial.device] += 1
                    run = _RUN[trial.device].options(scheduling_strategy=node.pinned())
                    self.running[run.remote(trial, self.rows.digests[trial.id])] = _Running(trial, node)
                    placed = True

    def _suits(self, node: _Node, trial: Trial) -> bool:
        return node.takes(trial) and node not in self.lost_on.get(trial.id, ())

    def _collect(self, ref: ray.ObjectRef) -> None:
        """The row of a trial whose task has ended; where no row came of it, the trial is tried again, in bounds."""
        trial, node = self.running.pop(ref)
        node.busy[trial.device] -= 1
        try:
            check = partial(self._check, trial, node)
            self.rows.note(trial, unpack(ray.get(ref), self.rows.results, trial.id, check))
            return
        except (RayError, Unusable) as error:
            reason, last = _cause(error), error
        node.refused = None  # it is asked again before it gets another trial
        lost_on = self.lost_on.setdefault(trial.id, [])
        lost_on.append(node)
        if len(lost_on) < TRIES:
            self.queue.put(trial)
            self._tell(f"{trial.title} broke off on {node.name} and runs again: {reason}")
            return
        status = Status.OOM_CPU if isinstance(last, OutOfMemoryError) else Status.INFRA_ERROR
        self.rows.record(trial, status, f"broke off {len(lost_on)} times, the last time on {node.name}: {reason}")

    def _check(self, trial: Trial, node: _Node, result: Result) -> None:
        """Raises Unusable for a result that says nothing of the model, or whose data are not those of the other models."""
        if result.status == Status.INTERRUPTED and not self.rows.stopped_by:
            raise Unusable("something other than this run stopped it")
        self.check_data(trial, result, f"on {node.name}")

    def check_data(self, trial: Trial, result: Result, where: str) -> None:
        """Raises Unusable where other data were drawn for the trial's task and seed before. where: this result is from."""
        if result.data_digest is None:
            return
        draw = json.dumps([trial.task, trial.task_parameters, trial.seed, trial.mode], sort_keys=True)
        digest, first = self.drawn.setdefault(draw, (result.data_digest, where))
        if digest != result.data_digest:
            raise Unusable(f"{trial.task}, seed {trial.seed}, came out as other data {where} than {first}")

    def _nobody(self, trial: Trial) -> str:
        """Why no node takes a trial."""
        reasons = [f"{node.name} {(node.refused or {}).get(trial.id)}" for node in self.nodes.values()]
        why = "; ".join(reasons) or "the cluster has no node with a core"
        return (
            f"{len(self.queue)} trials are left that no node takes, such as {trial.title}: {why}. Mend that, then run the same "
            "command again: finished trials are kept"
        )

    def _tell(self, sentence: str) -> None:
        if sentence not in self.said:
            self.said.add(sentence)
            self.say(sentence)


def _cause(error: Exception) -> str:
    """Its first sentence, without the stack of the other machine."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    sentence = " ".join(str(cause).split()).split(". ")[0]
    return f"{type(cause).__name__}: {sentence[:300]}"
