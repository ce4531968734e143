"""`rnnbench compare`: what it refuses, in one sentence each; what it says; and that each kind of file ends in results."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from bad_files import BAD

from benchmarks import __main__ as command_line


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """`main` with these arguments, in this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["rnnbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_ends_with_one_sentence_and_exit_code_2(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, options, message = BAD[what]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(command_line, "complete", None)  # nothing may run
    results = tmp_path / "results"
    assert call(monkeypatch, "compare", str(tmp_path / name), "--results", str(results), *options) == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.count("\n") == 1 and name in told and not results.exists()


def test_the_list_of_bad_files_is_long() -> None:
    assert len(BAD) >= 50
