"""What one trial writes or raises has a bound, wherever it goes: log, notebook, record, table."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import time
from pathlib import Path

import faulty
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import tables
from benchmarks.__main__ import app
from benchmarks.execution import capped_output, supervisor
from benchmarks.execution.capped_output import CappedLog
from benchmarks.execution.display import Progress, closing_table
from benchmarks.plain_text import LONGEST, plain, shortened
from benchmarks.records import Status, failure, read_result, run_folder, write_result

KEPT = capped_output.CAP + len(capped_output.MARKER) + capped_output.TAIL


@pytest.mark.usefixtures("plugin")
def test_a_log_that_a_library_floods_is_cut_and_still_ends_with_the_crash(tmp_path: Path, notebook: Path) -> None:
    trials = [faulty.trial("flood"), faulty.trial("none")]
    summary = supervisor.run(
        trials, dict.fromkeys((x.id for x in trials), "digest"), tmp_path, 1, notebook=notebook, deadline_s=60.0
    )
    first, second = summary.results
    assert (first.status, second.status) == (Status.KERNEL_DIED, Status.OK)
    log = run_folder(tmp_path, trials[0].id) / "stderr.log"
    assert capped_output.CAP < log.stat().st_size <= KEPT + 1_000  # what the worker says
    assert log.read_text().count("characters is left out") == 1
    assert "Fatal Python error: Segmentation fault" in log.read_text()[-capped_output.TAIL :]
    assert "SIGSEGV" in str(first.reason) and len(str(first.reason)) <= LONGEST


@pytest.mark.usefixtures("plugin")
def test_a_message_of_50_mb_is_bounded_in_log_notebook_record_and_table(tmp_path: Path, notebook: Path) -> None:
    trial = faulty.trial("wordy")
    began = time.monotonic()
    (result,) = supervisor.run([trial], {trial.id: "digest"}, tmp_path, 1, notebook=notebook, deadline_s=60.0).results
    table, _ = closing_table([trial], tmp_path)
    assert time.monotonic() - began < 30
    assert result.status == Status.ERROR and len(str(result.reason)) <= LONGEST
    assert str(result.reason).startswith("ValueError: \N{REPLACEMENT CHARACTER}[31mbad luck")
    assert "the end" in str(result.reason) and "characters …" in str(result.reason)
    folder = run_folder(tmp_path, trial.id)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
    assert "\x1b" not in table and "\x07" not in table and "bad luck" in table


@pytest.mark.slow
def test_a_gigabyte_past_python_stays_within_the_cap(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "stderr.log")
    with log.inherited():
        writer = subprocess.Popen(["head", "-c", "1000000000", "/dev/zero"], stdout=2)
    log.start()
    assert writer.wait() == 0
    log.finish()
    assert (tmp_path / "stderr.log").stat().st_size <= KEPT
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4_000_000


@pytest.mark.parametrize(
    "n_bytes", [0, 1, 100_000, capped_output.CAP - 1, capped_output.CAP, capped_output.CAP + 10, 3_000_000]
)
def test_a_log_holds_all_up_to_the_cap_and_then_the_end(tmp_path: Path, n_bytes: int) -> None:
    written = bytes(97 + k % 26 for k in range(n_bytes))
    path = tmp_path / "stderr.log"
    log = CappedLog(path)
    with log.inherited():
        writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=2)
    os.write(2, b"")  # this process writes where it did
    log.start()
    writer.communicate(written)
    log.finish()
    found = path.read_bytes()
    assert found[: capped_output.CAP] == written[: capped_output.CAP]
    if n_bytes > capped_output.CAP:
        assert found.endswith(written[max(capped_output.CAP, n_bytes - capped_output.TAIL) :])
    else:
        assert found.removesuffix(capped_output.MARKER.encode()) == written
    log.finish()
    assert path.read_bytes() == found


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x08\x9b31m\u202e bad\n\tluck"


def test_no_reason_makes_a_terminal_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str], plugin: Path) -> None:
    trial = faulty.trial("none")
    result = failure(trial, Status.ERROR, HOSTILE * 1000, "digest")
    folder = run_folder(tmp_path, trial.id)
    folder.mkdir(parents=True)
    write_result(folder, result)
    assert read_result(folder) == result
    with Progress(1) as progress:
        progress.advance(trial, result)
    frame = tables.frame(tmp_path, [trial])
    console = Console(file=io.StringIO())
    console.print(tables.render(tables.matrix(frame), frame))
    shown = capsys.readouterr().out + console.file.getvalue() + closing_table([trial], tmp_path)[0]  # type: ignore[attr-defined]
    assert "bad" in shown
    assert not set("\x07\x08\x9b\u202e") & set(shown) and "\x1b]" not in shown and "\x1b[2J" not in shown
    assert len(shown) < 20_000


def test_a_record_whose_reason_was_written_elsewhere_is_read_without_what_a_terminal_obeys(
    tmp_path: Path, plugin: Path
) -> None:
    from dataclasses import replace

    trial = faulty.trial("none")
    folder = run_folder(tmp_path, trial.id)
    folder.mkdir(parents=True)
    write_result(folder, replace(failure(trial, Status.ERROR, "", "digest"), reason=HOSTILE * 10_000))
    found = read_result(folder)
    assert found is not None and found.reason == plain(HOSTILE * 10_000) and len(found.reason) <= LONGEST


def test_no_error_makes_a_terminal_obey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import __main__ as command_line

    monkeypatch.setattr("sys.argv", ["rnnbench", "run", f"{HOSTILE}.yaml"])
    with pytest.raises(SystemExit):
        command_line.main()
    shown = capsys.readouterr().err
    assert "no such suite file" in shown and not set("\x1b\x07\x08\x9b\r\u202e") & set(shown)
    assert app is command_line.app


@given(st.text(max_size=60), st.integers(40, 50))
def test_plain_text_is_bounded_printable_and_else_the_same(text: str, longest: int) -> None:
    made = plain(text, longest)
    assert all(x.isprintable() or x in "\n\t" for x in made)
    assert len(made) <= longest and plain(made, longest) == made
    if all(x.isprintable() or x in "\n\t" for x in text):
        assert made == shortened(text, longest)
        assert len(text) > longest or made == text
