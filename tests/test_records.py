"""Run folders whose files were cut short, altered or replaced: the right result is read or none, and all readers go on."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from synthetic_runs import trials, write_failure, write_run
from test_report import PlainSuite, everything, study_of

from benchmarks import cost_tables, records, report, tables
from benchmarks.execution.display import closing_table
from benchmarks.execution.plan import plan
from benchmarks.figures import report_figures
from benchmarks.finished import Outcome, Run
from benchmarks.records import Result, Status, TornResult, read_result, run_folder
from benchmarks.tracking import Tracker
from benchmarks.trial import Trial

PLANNED = trials(("lstm", "floor"), ("adding",), 2)
FILES = ("result.json", "metrics.jsonl", "env.json")
SOUP = st.one_of(
    st.binary(max_size=400),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["schema", "digest", "trial_id", "a"]), inner)
        ),
        max_leaves=8,
    ).map(lambda content: json.dumps(content).encode()),
    st.just(b"[" * 5000),
    st.just(b'{"schema": ' + b"1" * 5000 + b"}"),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A whole run folder, and what its result is."""
    results = tmp_path_factory.mktemp("sound")
    written = write_run(results, PLANNED[0])
    folder = run_folder(results, PLANNED[0].id)
    assert read_result(folder) == written
    return folder, written


@pytest.fixture
def copied(sound: tuple[Path, Result], tmp_path: Path) -> Path:
    return shutil.copytree(sound[0], tmp_path / sound[0].name)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Cut short, with changed or swapped bytes, with a part twice or missing, or something else altogether."""
    at, upto = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2), "from … to"))
    match data.draw(st.sampled_from(["cut", "flipped", "overwritten", "lost", "doubled", "replaced"]), "how"):
        case "cut":
            return content[:at]
        case "flipped":
            position, bit = min(at, len(content) - 1), data.draw(st.integers(0, 7))
            return content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :]
        case "overwritten":
            return content[:at] + data.draw(st.binary(min_size=upto - at, max_size=upto - at)) + content[upto:]
        case "lost":
            return content[:at] + content[upto:]
        case "doubled":
            return content[:upto] + content[at:]
        case _:
            return data.draw(SOUP)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_run_folder_gives_the_right_result_or_none(
    sound: tuple[Path, Result], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole, written = sound
    folder = tmp_path_factory.getbasetemp() / "damaged" / whole.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    for name in data.draw(st.sets(st.sampled_from(FILES), min_size=1), "files"):
        (folder / name).write_bytes(damaged((whole / name).read_bytes(), data))
    try:
        found = read_result(folder)
    except TornResult as error:
        assert str(folder) in str(error)
    else:
        assert found == written
    assert isinstance(records.read_environment(folder), dict)
    assert all(isinstance(row, dict) for row in records.read_curve(folder))


def test_a_result_cut_short_at_any_length_is_torn(copied: Path) -> None:
    path = copied / "result.json"
    content = path.read_bytes()
    for length in [*range(0, len(content), 11), *range(len(content) - 11, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(TornResult):
            read_result(copied)


def test_a_digit_that_flipped_is_noticed_though_the_file_is_still_a_result(copied: Path) -> None:
    path = copied / "result.json"
    content = json.loads(path.read_text())
    content["test"]["mse"] *= 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(TornResult, match="altered after it had been written"):
        read_result(copied)


@pytest.mark.parametrize(
    "change", [{"schema": 99}, {"schema": 2.5}, {"trial_id": "f" * 16}, {"status": "fine"}, {"test": 3}]
)
def test_a_result_that_disagrees_with_its_folder_or_schema_is_refused(copied: Path, change: dict[str, object]) -> None:
    content = json.loads((copied / "result.json").read_text()) | change
    del content["digest"]
    (copied / "result.json").write_text(json.dumps({**content, "digest": records._digest(content)}))
    with pytest.raises(TornResult):
        read_result(copied)


def test_a_result_without_its_curve_or_with_another_is_refused(copied: Path) -> None:
    curve = copied / "metrics.jsonl"
    lines = curve.read_text()
    for other in (lines + "{}\n", lines[:-1], lines.replace("0", "1", 1), ""):
        curve.write_text(other)
        with pytest.raises(TornResult, match=r"metrics\.jsonl is not the file"):
            read_result(copied)
    curve.unlink()
    with pytest.raises(TornResult):
        read_result(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_should_be_is_torn(copied: Path, name: str) -> None:
    (copied / name).unlink()
    (copied / name).mkdir()
    if name == "env.json":
        assert records.read_environment(copied) == {}
        return
    with pytest.raises(TornResult):
        read_result(copied)
    assert records.read_curve(copied) == [] or name == "result.json"


def test_a_file_where_a_run_folder_should_be_is_torn(tmp_path: Path) -> None:
    (tmp_path / "a1").write_text("")
    with pytest.raises(TornResult, match="a file where the run folder should be"):
        read_result(tmp_path / "a1")


@pytest.mark.parametrize("content", [None, b"", b'{"git_com', b"\xff\xfe", b"[]", b"3"])
def test_a_torn_environment_is_an_unknown_one(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "env.json").write_bytes(content)
    assert records.read_environment(tmp_path) == {}


@pytest.mark.parametrize("torn", [b'{"st', b"\xff\n", b'{"step": "three"}\n', b"[]\n", b"\n"])
def test_a_curve_ends_where_it_cannot_be_read(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "best": true}\n{"step": 2, "validation": NaN}\n' + torn)
    assert [row["step"] for row in records.read_curve(tmp_path)] == [1, 2]
    assert records.read_curve(tmp_path)[0]["best"] is True


def torn_suite(results: Path) -> list[Trial]:
    """One sound run, and one of each kind of damage."""
    planned = trials(("lstm", "gru"), ("adding", "parity"), 3)
    for trial in planned:
        write_run(results, trial)
    folders = [run_folder(results, trial.id) for trial in planned[1:]]
    content = (folders[0] / "result.json").read_bytes()
    for folder, damage in zip(folders, (b"", content[:-9], b"\xff\xfe\0", b"[]", b"{}", content), strict=False):
        (folder / "result.json").write_bytes(damage)
    (folders[0] / "result.json").unlink()
    (folders[0] / "result.json").mkdir()
    shutil.rmtree(folders[6])
    folders[6].write_text("")
    (folders[7] / "metrics.jsonl").unlink()
    (folders[8] / "env.json").write_bytes(b"\xff")
    write_failure(results, planned[10], Status.TIMEOUT, "reached its cap")
    (folders[9] / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\n')
    return planned


def test_plan_table_and_report_go_on_over_damaged_folders_and_count_them(tmp_path: Path) -> None:
    planned = torn_suite(tmp_path)
    found = plan(planned, dict.fromkeys((trial.id for trial in planned), "digest"), tmp_path)
    assert len(found.torn) == 8 and not found.missing
    frame = tables.frame(tmp_path, planned)
    assert frame["status"].value_counts().to_dict() == {"missing": 8, "ok": 3, "timeout": 1}
    assert frame["reason"].str.startswith("unreadable result: ").sum() == 8
    table, n_failed = closing_table(planned, tmp_path)
    assert n_failed == 9 and "8 missing" in table and str(tmp_path) not in table
    text = everything(study_of(tmp_path, planned))
    assert "Of 12 trials: 8 missing, 3 ok, 1 timeout" in text and str(tmp_path) not in text
    for figure in (
        report_figures.status_overview(frame),
        report_figures.scores(frame, tables.matrix(frame)),
        report_figures.learning_curves(frame, report_figures.read_curves(frame, tmp_path)),
    ):
        figure.draw_without_rendering()
    timed = cost_tables.runs(tmp_path, [replace(trial, mode="timing") for trial in planned])
    assert set(timed["status"]) == {"missing"}


def test_whether_a_report_is_current_and_a_run_finished_is_told_over_damaged_folders(tmp_path: Path) -> None:
    planned = torn_suite(tmp_path)
    suite = PlainSuite(planned)
    (tmp_path / suite.name).mkdir()
    (tmp_path / suite.name / "report.html").write_text("a page")
    (tmp_path / suite.name / "suite.json").write_bytes(b"\xff")
    assert not report.is_current(tmp_path, suite, planned)  # type: ignore[arg-type]
    file = tmp_path / "tiny.yaml"
    file.write_text(f"name: {suite.name}")
    run = Run(str(file), "cpu", tmp_path)
    run.remember([trial.id for trial in planned], Outcome("a table", 9, None))
    assert run.recall() == Outcome("a table", 9, None)
    assert not Tracker(tmp_path, suite.name, planned).is_logged(planned[0])
    Tracker(tmp_path, suite.name, planned).is_logged(planned[1])


def test_an_ok_without_its_primary_metric_is_never_averaged(tmp_path: Path) -> None:
    planned = trials(("lstm",), ("adding",), 2)
    kept = write_run(tmp_path, planned[0])
    write_run(tmp_path, planned[1], test={})
    frame = tables.frame(tmp_path, planned)
    assert list(frame["status"]) == [Status.OK, Status.INVALID_METRIC]
    matrix = tables.matrix(frame)
    assert matrix["mean"].item() == kept.test["mse"] and matrix["failures"].item() == "1 of 2 failed: invalid_metric"
    console = Console(file=io.StringIO())
    console.print(tables.render(matrix, frame))
    assert "the result holds no primary metric" in console.file.getvalue()  # type: ignore[attr-defined]
