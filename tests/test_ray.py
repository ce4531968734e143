"""A Ray cluster runs what the local supervisor runs: no torn result, none made with other code, none lost with a node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import faulty
import psutil
import pytest

from benchmarks import __main__ as command_line
from benchmarks import execution, provenance
from benchmarks.execution import ray_node, supervisor
from benchmarks.execution.order import Expected, Queue
from benchmarks.execution.packing import Unusable, pack, unpack
from benchmarks.execution.plan import plan
from benchmarks.execution.ray_node import Facts, refusals
from benchmarks.execution.supervisor import ClusterError
from benchmarks.parameters import InvalidParameter
from benchmarks.records import Result, Status, failure, read_result, run_folder, write_result
from benchmarks.running import Options, code_digests, supervise
from benchmarks.trial import Overrides, Trial, specify

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

pytest.importorskip("ray")
from ray.exceptions import WorkerCrashedError

from benchmarks.execution import ray_cluster


def lstm(seed: int) -> Trial:
    small = Overrides(task_parameters={"length": 10}, fit={"n_steps": 20, "evaluate_every": 10})
    return specify("adding", "lstm", seed, 500, "cpu", small)


def digests(trials: list[Trial]) -> dict[str, str]:
    return code_digests(trials)


def accept(result: Result) -> None:
    """Any result will do."""


def finished(results: Path, trial: Trial, accuracy: float = 0.5) -> Path:
    """A run folder with a result and a notebook."""
    folder = run_folder(results, trial.id)
    folder.mkdir(parents=True)
    (folder / "notebook.ipynb").write_text("{}")
    spec = json.loads(json.dumps(vars(trial)))
    write_result(folder, Result(trial.id, spec, Status.OK, "digest", test={"accuracy": accuracy}))
    return folder


def test_a_run_folder_arrives_as_it_was_packed_and_replaces_an_older_one(tmp_path: Path) -> None:
    trial = lstm(0)
    packed = pack(finished(tmp_path / "node", trial, 0.7))
    older = finished(tmp_path, trial, 0.1)
    (older / "left.txt").write_text("of an earlier attempt")
    assert unpack(packed, tmp_path, trial.id, accept).test == {"accuracy": 0.7}
    assert read_result(older) == read_result(run_folder(tmp_path / "node", trial.id))
    assert sorted(path.name for path in older.iterdir()) == ["notebook.ipynb", "result.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node", "runs"]


@pytest.mark.parametrize("fault", ["cut short", "no result", "torn result", "of another trial", "refused"])
def test_what_cannot_be_trusted_never_becomes_a_result(tmp_path: Path, fault: str) -> None:
    trial = lstm(0)
    folder = finished(tmp_path / "node", lstm(1) if fault == "of another trial" else trial)
    if fault == "no result":
        (folder / "result.json").unlink()
    if fault == "torn result":
        (folder / "result.json").write_text('{"trial_id": ')
    packed = pack(folder)[:-40] if fault == "cut short" else pack(folder)

    def check(result: Result) -> None:
        if fault == "refused":
            raise Unusable("not this one")

    older = finished(tmp_path, trial, 0.1)
    with pytest.raises(Unusable):
        unpack(packed, tmp_path, trial.id, check)
    found = read_result(older)
    assert found is not None and found.test == {"accuracy": 0.1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node", "runs"]


def facts_of(trials: list[Trial], **changed: object) -> Facts:
    own = Facts({"torch": "2.13.0", "numpy": "2.3.5"}, "abc", {trial.id: "digest" for trial in trials}, {})
    return own._replace(**changed)  # type: ignore[arg-type]


def test_a_node_like_the_coordinator_refuses_nothing() -> None:
    trials = [lstm(0), lstm(1)]
    assert refusals(trials, facts_of(trials), facts_of(trials)) == {}


def test_other_versions_refuse_every_trial_and_the_sentence_names_both() -> None:
    trials = [lstm(0), lstm(1)]
    refused = refusals(trials, facts_of(trials), facts_of(trials, versions={"torch": "2.12.0", "numpy": "2.3.5"}))
    assert refused.keys() == {trial.id for trial in trials}
    assert set(refused.values()) == {"has torch 2.12.0, the coordinator 2.13.0: install the same versions"}


def test_other_code_refuses_the_trials_that_it_would_change() -> None:
    trials = [lstm(0), lstm(1)]
    theirs = facts_of(trials, code={trials[0].id: "digest", trials[1].id: "other"}, commit="def")
    sentence = "has other code for lstm on adding (its commit is def, the coordinator's abc): check out the same code"
    assert refusals(trials, facts_of(trials), theirs) == {trials[1].id: sentence}


def test_missing_data_refuse_the_trials_of_their_task() -> None:
    trials = [lstm(0), specify("casino", "lstm", 0, 500, "cpu")]
    theirs = facts_of(trials, lacks={"casino": "the file is gone"})
    assert refusals(trials, facts_of(trials), theirs) == {trials[1].id: "cannot run casino: the file is gone"}


def test_a_machine_says_which_data_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(trials: list[Trial]) -> list[str]:
        raise InvalidParameter("needs what is not installed")

    trial = lstm(0)
    assert ray_node.facts([trial]).code == digests([trial])
    assert ray_node.facts([trial]).versions.keys() == set(provenance.PACKAGES)
    monkeypatch.setattr(ray_node, "prepare", gone)
    assert ray_node.facts([trial]).lacks == {"adding": "needs what is not installed"}


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ray_cluster", "ray_connection"):
        monkeypatch.delitem(sys.modules, f"benchmarks.execution.{name}")
        monkeypatch.delattr(execution, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    trial = lstm(0)
    found = plan([trial], digests([trial]), tmp_path)
    with pytest.raises(InvalidParameter, match=r"pip install 'rnnbench\[cluster\]'"):
        supervise([trial], found, digests([trial]), Options(tmp_path, 1, "ray"))


@pytest.mark.parametrize("command", [["run", "smoke"], ["tune", "smoke", "--trials", "2"]])
def test_an_address_without_a_cluster_to_use_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rnnbench", *command, "--address", "head:6379"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "only --executor ray" in capsys.readouterr().err


@pytest.fixture
def cluster(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two nodes of one core on this machine, which find the faulty model."""
    from ray.cluster_utils import Cluster

    short = tempfile.mkdtemp(prefix="rnnbench-ray-")  # a socket's path may have 107 bytes
    monkeypatch.setenv("RAY_TMPDIR", short)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: on a busy machine a test would wait for long
    path = [str(plugin), str(Path(faulty.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    started = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False, "no_monitor": True})
    started.add_node(**node)
    yield started
    started.shutdown()
    shutil.rmtree(short, ignore_errors=True)  # some process may still be writing its log


def test_nothing_is_asked_of_a_cluster_where_nothing_is_left_to_run(tmp_path: Path) -> None:
    elsewhere = partial(ray_cluster.work, address="nowhere:1", workers=None, say=pytest.fail)
    assert supervisor.run([], {}, tmp_path, elsewhere=elsewhere).results == []


@dataclass
class Recorded:
    """The rows of a run, kept in memory."""

    digests: Mapping[str, str]
    results: Path
    expected: Expected = field(default_factory=Expected)
    stopped_by: signal.Signals | None = None
    kill: bool = False
    rows: list[Result] = field(default_factory=list)

    def record(self, trial: Trial, status: Status, reason: str) -> Result:
        return self.note(trial, failure(trial, status, reason, self.digests[trial.id]))

    def note(self, trial: Trial, result: Result) -> Result:
        self.rows.append(result)
        return result


@pytest.fixture
def run(tmp_path: Path) -> ray_cluster._Cluster:
    """One on a cluster of two nodes that are not there."""
    trials, said = [lstm(0), lstm(1)], []  # type: ignore[var-annotated]
    rows = Recorded(digests(trials), tmp_path)
    made = ray_cluster._Cluster(rows, trials, None, said.append, facts_of(trials), Queue(trials, rows.expected))
    for name in "ab":
        made.nodes[name] = ray_cluster._Node(name, f"node {name}", {"cpu": 1, "cuda": 0}, refused={})
    return made


def test_a_trial_lost_three_times_is_an_infra_error_and_never_the_models_fault(
    run: ray_cluster._Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(ref: object) -> bytes:
        raise WorkerCrashedError

    monkeypatch.setattr(ray_cluster.ray, "get", lost)
    trial, node = run.trials[0], run.nodes["a"]
    for n_lost in range(1, 4):
        assert run.queue.take(lambda waiting: waiting == trial) == trial
        assert not run.rows.rows  # type: ignore[attr-defined]
        node.busy["cpu"], node.refused = 1, {}
        run.running["ref"] = ray_cluster._Running(trial, node)  # type: ignore[index]
        run._collect("ref")  # type: ignore[arg-type]
        assert node.refused is None and node.busy["cpu"] == 0
        assert (trial in run.queue) is (n_lost < 3)
    (row,) = run.rows.rows  # type: ignore[attr-defined]
    assert row.status == Status.INFRA_ERROR and "broke off 3 times, the last time on node a" in row.reason


def test_data_that_one_node_draws_otherwise_are_not_taken(run: ray_cluster._Cluster) -> None:
    trial = lstm(0)
    result = Result(trial.id, {}, Status.OK, "digest", data_digest="1")
    run.check_data(trial, result, "on node a")
    run.check_data(trial, result, "on node b")
    run.check_data(lstm(1), replace(result, data_digest="2"), "on node b")
    with pytest.raises(Unusable, match="adding, seed 0, came out as other data on node b than on node a"):
        run.check_data(trial, replace(result, data_digest="2"), "on node b")


def test_where_no_node_takes_what_is_left_the_sentence_says_why(run: ray_cluster._Cluster) -> None:
    for node in run.nodes.values():
        node.refused = {trial.id: f"has torch 1.{node.id}" for trial in run.trials}
    sentence = run._nobody(next(iter(run.queue)))
    assert "2 trials are left that no node takes, such as lstm on adding, seed 0" in sentence
    assert "node a has torch 1.a; node b has torch 1.b" in sentence


def test_what_takes_long_is_placed_first_and_where_it_was_not_lost(run: ray_cluster._Cluster) -> None:
    short, (long, other) = run.trials[0], (specify("casino", "lstm", seed, 500, "cpu") for seed in range(2))
    told = [(short, 1.0), (long, 9.0)]
    for trial, seconds in told:
        run.rows.expected.learn(trial, Result(trial.id, {}, Status.OK, "", seconds={"train": seconds}))
    run.queue.put(long)
    run.queue.put(other)
    a, b = run.nodes.values()
    run.lost_on[long.id] = [a]
    assert run.queue.take(partial(run._suits, a)) == other
    assert run.queue.take(partial(run._suits, b)) == long
    assert run.queue.take(partial(run._suits, b)) == short


def test_a_node_takes_one_trial_per_core_and_none_on_a_gpu_that_it_lacks(run: ray_cluster._Cluster) -> None:
    node, trial = run.nodes["a"], run.trials[0]
    assert node.takes(trial) and not node.takes(replace(trial, device="cuda"))
    node.busy["cpu"] = 1
    assert not node.takes(trial)


def run_on(cluster: Cluster, trials: list[Trial], results: Path, say: Callable[[str], None]) -> list[Result]:
    elsewhere = partial(ray_cluster.work, address=cluster.address, workers=None, say=say)
    return supervisor.run(trials, digests(trials), results, elsewhere=elsewhere).results


def raylet_of(node: Node) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def children(process: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
    try:
        return process.children(recursive)
    except psutil.NoSuchProcess:  # workers and their short helpers come and go
        return []


def processes_of_trials(raylet: psutil.Process) -> list[psutil.Process]:
    """What a fork server below a Ray worker has forked."""
    servers = [server for worker in children(raylet) for server in children(worker)]
    return [process for server in servers for process in children(server, recursive=True)]


def kill_when_busy(raylet: psutil.Process, left: list[psutil.Process]) -> None:
    """Loses a node in the middle of a trial: its Ray processes are killed, those of the trial are `left` to themselves."""
    while not left:
        time.sleep(0.05)
        left += processes_of_trials(raylet)
    for process in [raylet, *children(raylet)]:
        with suppress(psutil.NoSuchProcess):  # a worker ends by itself when its raylet has
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")
def test_a_node_lost_half_way_loses_no_trial_and_the_results_are_the_local_ones(
    cluster: Cluster, tmp_path: Path
) -> None:
    trials = [
        *(lstm(seed) for seed in range(6)),
        specify("adding", "hmm", 0, None, "cpu"),  # which it cannot do
        faulty.trial("error"),
        faulty.trial("kill"),
    ]
    local = supervisor.run(trials, digests(trials), tmp_path / "local", 2).results
    said: list[str] = []
    left: list[psutil.Process] = []
    killer = Thread(target=kill_when_busy, args=(raylet_of(next(iter(cluster.worker_nodes))), left))
    killer.start()
    ours = run_on(cluster, trials, tmp_path / "ray", said.append)
    killer.join()

    assert [sentence for sentence in said if "runs again" in sentence], said
    assert psutil.wait_procs(left, timeout=10)[1] == []
    assert len(ours) == len(local) == len(trials)
    by_id = {result.trial_id: result for result in local}
    for trial in trials:
        mine, other = read_result(run_folder(tmp_path / "ray", trial.id)), by_id[trial.id]
        assert mine is not None and mine.status == other.status
        assert (mine.test, mine.validation, mine.data_digest) == (other.test, other.validation, other.data_digest)
        files = {path.name for path in run_folder(tmp_path / "ray", trial.id).iterdir()}
        assert files == {path.name for path in run_folder(tmp_path / "local", trial.id).iterdir()}
    assert plan(trials, digests(trials), tmp_path / "ray").to_run == []


SUITE = """# Command: rnnbench run faults.yaml
# Time: seconds
# Expected: what the test says
name: faults
description: Trials that go wrong on command.
seeds: 4
grids:
  - {{models: [{{name: faulty, config: {{fault: {fault}}}}}], tasks: [casino]}}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")
def test_sigterm_kills_and_nothing_goes_on_on_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """What Ctrl-C once and twice mean is the supervisor's to say, for trials here and there alike: `test_execution.py`."""
    raylets = [raylet_of(node) for node in (cluster.head_node, *cluster.worker_nodes)]
    suite, results = tmp_path / "hanging.yaml", tmp_path / "results"
    suite.write_text(SUITE.format(fault="hang"))
    command = [sys.executable, "-m", "benchmarks", "run", str(suite), "--results", str(results), "--no-report"]
    with subprocess.Popen([*command, "--executor", "ray", "--address", cluster.address]) as run:
        while not any(map(processes_of_trials, raylets)):
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 143
    found = [read_result(folder) for folder in (results / "runs").glob("*")]
    assert not [result for result in found if result is not None and result.status == Status.OK]
    for _ in range(100):
        if not any(map(processes_of_trials, raylets)):
            break
        time.sleep(0.1)
    assert not any(map(processes_of_trials, raylets))


@pytest.mark.filterwarnings("default")
def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path) -> None:
    elsewhere = partial(ray_cluster.work, address="127.0.0.1:1", workers=None, say=pytest.fail)
    with pytest.raises(ClusterError, match=r"at 127\.0\.0\.1:1 cannot be used"):
        supervisor.run([lstm(0)], digests([lstm(0)]), tmp_path, elsewhere=elsewhere)
