"""Records with a right digest that no trial could have written: each is set aside and named, and all readers go on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_runs import STEPS_S, timing_trials, trials, write_cost, write_run

from benchmarks import cost_tables, records
from benchmarks.execution.display import closing_table
from benchmarks.execution.plan import plan
from benchmarks.records import RESULT, TornResult, read_result, run_folder

PLANNED = [*trials(("lstm", "gru"), ("adding", "parity"), 2), *trials(("lstm",), ("hidden_source",), 1)]
TIMED = timing_trials(1)
ODD: tuple[Any, ...] = (
    *(float("nan"), float("inf"), -1, 0, 1e308, -1e308, 10**30, 10**400, 2**62, 0.5, True, None, "", "many", "7"),
    *([], {}, ["a"], {"a": "b"}, {"a": 1}, "\ud800", "\x1b[31m", "9" * 5000),
)


def reseal(folder: Path, change: Callable[[dict[str, Any]], object], **beside: bytes) -> None:
    """Changes a result and the files beside it, so that every digest is right. beside: "curve" or "terms" → content."""
    content = json.loads((folder / RESULT).read_text())
    for name, field_name in records.BESIDE.items():
        written = beside.get(field_name.removesuffix("_digest"))
        if written is not None:
            (folder / name).write_bytes(written)
            content[field_name] = hashlib.sha256(written).hexdigest()
    change(content)
    content.pop("digest", None)
    content["digest"] = records._digest(content)
    (folder / RESULT).write_text(json.dumps(content))


def places(content: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all that is in a result but for what binds it to its folder."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in inner:
        if path or name not in ("trial_id", "digest", "schema", "curve_digest", "terms_digest"):
            yield (*path, name)
            yield from places(value, (*path, name))


def put(content: Any, path: tuple[str | int, ...], value: Any) -> None:
    for part in path[:-1]:
        content = content[part]
    content[path[-1]] = value


def read_all(results: Path) -> str:
    """What a terminal shows of all runs; every reader but the report and MLflow."""
    planned = [*PLANNED, *TIMED]
    plan(planned, dict.fromkeys((trial.id for trial in planned), "digest"), results)
    timed = cost_tables.runs(results, planned)
    cost_tables.costs(timed)
    return closing_table(planned, results)[0]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("sound")
    for trial in PLANNED:
        write_run(results, trial)
    for trial in TIMED:
        write_cost(results, trial, STEPS_S[trial.model])
    return results


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_a_sealed_record_holds_the_tables_go_on_and_name_it_where_it_is_set_aside(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    trial = data.draw(st.sampled_from([*PLANNED, *TIMED]), "trial")
    content = json.loads((run_folder(sound, trial.id) / RESULT).read_text())
    path = data.draw(st.sampled_from(list(places(content))), "place")
    odd = data.draw(st.sampled_from(ODD), "value")
    results = tmp_path_factory.getbasetemp() / "odd"
    shutil.rmtree(results, ignore_errors=True)
    shutil.copytree(sound, results)
    folder = run_folder(results, trial.id)
    reseal(folder, lambda content: put(content, path, odd))
    shown = read_all(results)
    assert "\x1b" not in shown
    try:
        read_result(folder)
    except TornResult as error:
        assert str(folder) in str(error) and len(str(error).splitlines()) == 1
        assert "unreadable result" in shown
