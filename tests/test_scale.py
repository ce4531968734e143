"""What must not grow with the number of trials: what is read more than once, compared pairwise, or imported for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from instant_workers import InstantContext
from synthetic_runs import trials, write_run

from benchmarks import records, report, tables
from benchmarks import report_sections as sections
from benchmarks.execution import fork_server
from benchmarks.running import Narrowed, Options, complete
from benchmarks.suite import load
from benchmarks.tracking import Tracker

SUITE = """# Command: none
# Time: seconds
# Expected: thirty rows
name: thirty
description: Three models on two tasks, five seeds.
parameter_budget: 2000
seeds: 5
grids:
  - {models: [lstm, gru, floor], tasks: [adding, parity]}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "thirty.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Trial id → how often its result was read and validated."""
    counts: Counter[str] = Counter()
    parse = records.parse_result

    def counted(written: bytes, where: Path, trial_id: str, curve_digest: str | None) -> records.Result:
        counts[trial_id] += 1
        return parse(written, where, trial_id, curve_digest)

    monkeypatch.setattr(records, "parse_result", counted)
    return counts


def test_a_run_with_nothing_to_do_reads_each_result_once(
    suite: Path, tmp_path: Path, validated: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = load(str(suite)).trials(device="cpu")
    for trial in planned:
        write_run(tmp_path, trial)
    asked: Counter[str] = Counter()
    monkeypatch.setattr(Tracker, "submit", lambda self, trial, result: asked.update([trial.id]))
    outcome = complete(str(suite), "cpu", Options(tmp_path, 1), Narrowed(report=False))
    assert outcome is not None and "30 trials: 30 ok" in outcome.table
    assert set(asked) == {trial.id for trial in planned}
    assert validated == dict.fromkeys(asked, 1)


def test_a_run_of_new_trials_reads_each_result_once(
    suite: Path, tmp_path: Path, validated: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "context", lambda forked: InstantContext())
    monkeypatch.setattr(Tracker, "submit", lambda self, trial, result: None)
    outcome = complete(str(suite), "cpu", Options(tmp_path, 2), Narrowed(report=False))
    assert outcome is not None and "30 trials: 30 ok" in outcome.table
    assert len(validated) == 30 and set(validated.values()) == {1}


def test_a_report_reads_each_result_and_each_curve_once(
    suite: Path, tmp_path: Path, validated: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.cost_sections import target_table

    chosen = load(str(suite))
    planned = chosen.trials(device="cpu")
    for trial in planned:
        write_run(tmp_path, trial)
    (tmp_path / "thirty").mkdir()
    (tmp_path / "thirty" / "suite.json").write_text(report._content(chosen, planned))
    curves: Counter[str] = Counter()
    read_curve = records.read_curve
    monkeypatch.setattr(records, "read_curve", lambda folder: curves.update([folder.name]) or read_curve(folder))
    study = report.open_study(tmp_path, "thirty")
    for section in (sections.answer, sections.matrix_table, sections.environment_table, target_table):
        assert section(study).text
    assert study.curves
    assert validated == curves == dict.fromkeys((trial.id for trial in planned), 1)


def test_a_result_that_was_replaced_is_read_again_even_with_the_size_and_the_time_of_before(tmp_path: Path) -> None:
    (trial,) = trials(("lstm",), ("adding",), 1)
    write_run(tmp_path, trial, 0.5)
    folder = records.run_folder(tmp_path, trial.id)
    path = folder / records.RESULT
    first, digest, before = records.read_result(folder), records.result_digest(folder), path.stat()
    assert first is not None and records.read_result(folder) is first
    assert first.state_bytes is not None
    records.write_result(folder, replace(first, state_bytes=first.state_bytes + 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    second = records.read_result(folder)
    assert second is not None and second.state_bytes == first.state_bytes + 1
    assert records.result_digest(folder) != digest


def test_a_curve_that_was_replaced_makes_a_result_torn_although_it_was_read_before(tmp_path: Path) -> None:
    (trial,) = trials(("lstm",), ("adding",), 1)
    write_run(tmp_path, trial)
    folder = records.run_folder(tmp_path, trial.id)
    assert records.read_result(folder) is not None
    (folder / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(records.TornResult, match=r"metrics\.jsonl"):
        records.read_result(folder)
    assert records.result_digest(folder) == records.file_digest(folder / records.RESULT)


def test_variants_are_told_apart_by_kind_however_many_seeds_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: Counter[int] = Counter()
    distinction = tables._distinction

    def counted(own, rivals):
        compared[n_seeds] += len(rivals)
        return distinction(own, rivals)

    monkeypatch.setattr(tables, "_distinction", counted)
    for n_seeds in (2, 40):
        planned = trials(("lstm", "gru"), ("adding", "parity"), n_seeds)
        assert len(list(tables.labels(planned))) == len(planned)
    assert compared[2] == compared[40] > 0


def test_a_finished_suite_is_recalled_without_importing_torch(tmp_path: Path) -> None:
    (tmp_path / "smoke").mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "from benchmarks import __main__ as c; from benchmarks.finished import Outcome, Run\n"
        "Run('smoke', 'cpu', Path(sys.argv[1])).remember(['a1', 'b2'], Outcome('a table\\n', 0, None))\n"
        "sys.argv = ['rnnbench', 'run', 'smoke', '--device', 'cpu', '--results', sys.argv[1]]\n"
        "try:\n    c.main()\n"
        "finally:\n    sys.stderr.write('torch' if 'torch' in sys.modules else 'no torch')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout.startswith("a table\n"), ended.stderr
    assert ended.stderr == "no torch"
