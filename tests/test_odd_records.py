"""Records with a right digest that no trial could have written: each is set aside and named, and all readers go on."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_runs import STEPS_S, timing_trials, trials, write_cost, write_run
from test_report import PlainSuite

from benchmarks import cost_tables, records, report, tables, terms, tracking
from benchmarks.exchange import merge
from benchmarks.execution.display import closing_table
from benchmarks.execution.plan import plan
from benchmarks.metrics import Parts
from benchmarks.portable import BadArchive, open_archive
from benchmarks.records import RESULT, TornResult, read_result, run_folder
from benchmarks.terms import Terms

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


@settings(max_examples=30, deadline=None)
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


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **{name.replace("__", "."): array for name, array in arrays.items()})
    return content.getvalue()


def headed(shape: str, descr: str = "'<f4'") -> bytes:
    """A file of terms with a member whose header claims what does not follow."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("mse.over.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    return content.getvalue()


ONES = np.ones(60, np.float32)
ODD_TERMS = {
    "nothing": b"",
    "no zip": b"PK",
    "no n": npz(mse__over=ONES, mse__under=ONES),
    "no side": npz(mse__over=ONES, mse__n=np.array(60)),
    "other lengths": npz(mse__over=ONES, mse__under=ONES[:7], mse__n=np.array(60)),
    "another n": npz(mse__over=ONES, mse__under=ONES, mse__n=np.array(61)),
    "10⁹ sequences": npz(mse__over=ONES[:1], mse__under=ONES[:1], mse__n=np.array(10**9)),
    "n below zero": npz(mse__over=ONES[:1], mse__under=ONES[:1], mse__n=np.array(-1)),
    "n a list": npz(mse__over=ONES, mse__under=ONES, mse__n=np.array([60])),
    "n a text": npz(mse__over=ONES, mse__under=ONES, mse__n=np.array("60")),
    "objects": npz(mse__over=np.array([{}] * 60), mse__under=ONES, mse__n=np.array(60)),
    "texts": npz(mse__over=np.array(["a"] * 60), mse__under=ONES, mse__n=np.array(60)),
    "two axes": npz(mse__over=ONES[None], mse__under=ONES, mse__n=np.array(60)),
    "not finite": npz(mse__over=ONES * np.nan, mse__under=ONES, mse__n=np.array(60)),
    "nothing below the line": npz(mse__over=ONES, mse__under=0 * ONES, mse__n=np.array(60)),
    "a bomb": npz(mse__over=np.zeros(50_000_000, np.float32), mse__under=ONES, mse__n=np.array(60)),
    "a stranger": npz(mse__over=ONES, mse__under=ONES, mse__n=np.array(60), other=ONES),
    "a header of 10⁹ entries": headed("(1000000000,)"),
    "a header of 10⁴⁰ entries": headed("(10000000000000000000000000000000000000000,)"),
    "a header below zero": headed("(-1,)"),
    "a header that is code": headed("__import__('os')"),
    "a header of nothing": headed("(0,)", "'<V0'"),
}


@pytest.mark.parametrize("kind", ODD_TERMS)
def test_odd_terms_are_set_aside_and_named_without_being_unpacked(sound: Path, tmp_path: Path, kind: str) -> None:
    folder = run_folder(tmp_path, PLANNED[0].id)
    shutil.copytree(run_folder(sound, PLANNED[0].id), folder)
    reseal(folder, lambda content: None, terms=ODD_TERMS[kind])
    with pytest.raises(TornResult, match=r"result.json: test_terms.npz: .") as torn:
        read_result(folder)
    assert len(str(torn.value).splitlines()) == 1
    frame = tables.frame(tmp_path, PLANNED[:1])
    assert frame["reason"].str.contains("test_terms.npz").all() and frame["terms"].isna().all()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_bytes_stand_for_terms_they_are_read_or_refused(data: st.DataObject) -> None:
    sound = bytearray(npz(mse__over=ONES, mse__under=ONES[:1], mse__n=np.array(60)))
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    try:
        terms.check(bytes(sound))
    except ValueError as error:
        assert str(error).strip()


def test_terms_that_float32_cannot_hold_and_very_many_are_no_odd_ones(tmp_path: Path) -> None:
    path = tmp_path / "terms.npz"
    large = torch.full((3,), 1e60, dtype=torch.float64)
    large[0] = 1.0
    terms.write(path, {"mse": Parts(large, torch.ones(3).double())})
    terms.check(path.read_bytes())
    found = terms.read(path, "mse")
    assert found is not None and found.over.tolist() == [1.0, 1e60, 1e60]
    path.unlink()
    terms.write(path, {"mse": Parts(torch.zeros(terms.LARGEST_N + 1), torch.ones(terms.LARGEST_N + 1))})
    assert not path.exists()


def test_the_bootstrap_in_pieces_is_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    over, under = np.random.default_rng(0).random((2, 500))
    whole = Terms(over, under, block=4).resampled
    monkeypatch.setattr(terms, "AT_ONCE", 500 * 70)
    np.testing.assert_allclose(Terms(over, under, block=4).resampled, whole, rtol=1e-12)


WHOLE = {
    "step": 1,
    "seconds": 0.5,
    "train_loss": None,
    "gradient_norm": 2,
    "validation_loss": 0.1,
    "validation": 0.5,
    "best": True,
}
ODD_CURVES = {
    **{f"no {key}": {name: value for name, value in WHOLE.items() if name != key} for key in WHOLE},
    **{f"{key} is a text": WHOLE | {key: "1"} for key in WHOLE},
    "validation is not a number": WHOLE | {"validation": float("nan")},
    "a step of 400 digits": WHOLE | {"step": 10**400},
    "a step before the first": WHOLE | {"step": -1},
}


@pytest.mark.parametrize("kind", ODD_CURVES)
def test_a_curve_with_an_odd_row_is_set_aside_and_the_row_named(sound: Path, tmp_path: Path, kind: str) -> None:
    folder = run_folder(tmp_path, PLANNED[0].id)
    shutil.copytree(run_folder(sound, PLANNED[0].id), folder)
    lines = [json.dumps(row) for row in (WHOLE, ODD_CURVES[kind], WHOLE)]
    reseal(folder, lambda content: None, curve="\n".join([*lines, ""]).encode())
    with pytest.raises(TornResult, match=r"metrics.jsonl, line 2: "):
        read_result(folder)
    reseal(folder, lambda content: None, curve=f"{lines[0]}\n".encode())
    assert read_result(folder) is not None


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("test", "mse"), float("nan"), "test.mse"),
        (("test", "mse"), "0.5", "test.mse"),
        (("test", "mse"), True, "test.mse"),
        (("validation", "mse"), float("inf"), "validation.mse"),
        (("memory", "increment_bytes"), "many", "increment_bytes"),
        (("length_sweep",), {"long": 0.5}, "length_sweep"),
        (("length_sweep",), {"9" * 5000: 0.5}, "length_sweep"),
        (("best_before",), {"validation": 0.5}, "step"),
        (("seconds",), {"train": None}, "seconds.train"),
        (("test", "mse"), 1e308, "test.mse"),
        (("seconds", "train"), -1e308, "seconds.train"),
        (("steps",), 10**400, "64 bits"),
        (("steps",), 2.5, "steps"),
        (("reason",), "\ud800", "Invalid JSON"),
        (("optimum_gap",), {"mean": 0.1, "low": 0.0, "n": 3}, "optimum_gap.high"),
    ],
)
def test_what_is_odd_in_a_record_is_named(
    sound: Path, tmp_path: Path, path: tuple[str, ...], value: Any, named: str
) -> None:
    folder = run_folder(tmp_path, PLANNED[0].id)
    shutil.copytree(run_folder(sound, PLANNED[0].id), folder)
    reseal(folder, lambda content: put(content, path, value))
    with pytest.raises(TornResult) as torn:
        read_result(folder)
    assert named in str(torn.value) and len(str(torn.value)) < 600
    planned = plan(PLANNED[:1], {PLANNED[0].id: "digest"}, tmp_path)
    assert [trial for trial, _ in planned.torn] == PLANNED[:1]


def test_a_result_of_more_bytes_than_any_is_not_read(sound: Path, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, PLANNED[0].id)
    shutil.copytree(run_folder(sound, PLANNED[0].id), folder)
    with (folder / RESULT).open("ab") as file:
        file.truncate(records.LARGEST + 1)
    with pytest.raises(TornResult, match="bytes, more than any result"):
        read_result(folder)


@pytest.mark.parametrize("kind", ["metric", "terms", "curve"])
def test_an_import_refuses_an_archive_with_an_odd_record(sound: Path, tmp_path: Path, kind: str) -> None:
    trial = PLANNED[0]
    results = tmp_path / "from"
    folder = run_folder(results, trial.id)
    shutil.copytree(run_folder(sound, trial.id), folder)
    beside = {"terms": ODD_TERMS["10⁹ sequences"]} if kind == "terms" else {}
    beside |= {"curve": b'{"step": 1}\n'} if kind == "curve" else {}
    reseal(folder, lambda content: content["test"].update(mse=float("nan") if kind == "metric" else 0.5), **beside)
    files = {f"runs/{trial.id}/{path.name}": path.read_bytes() for path in folder.iterdir()}
    files["suite/suite.yaml"] = b"name: mine"
    listed = [{"path": x, "size": len(y), "sha256": hashlib.sha256(y).hexdigest()} for x, y in files.items()]
    manifest = {
        "schema": 1,
        "suite": "mine",
        "device": "cpu",
        "machines": [],
        "git_commit": None,
        "statuses": {"ok": 1},
    }
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr("manifest.json", json.dumps(manifest | {"files": listed}))
    named = {"metric": r"test\.mse", "terms": r"test_terms\.npz: mse\.n", "curve": r"metrics\.jsonl, line 1"}[kind]
    with open_archive(tmp_path / "odd.zip") as archive, pytest.raises(BadArchive, match=named):
        merge(archive, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_report_and_store_go_on_over_odd_records_and_name_them(sound: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(sound, results)
    changes: list[tuple[Callable[[dict[str, Any]], object], dict[str, bytes]]] = [
        (lambda content: content["test"].update(mse=float("nan")), {}),
        (lambda content: content["seconds"].update(train="long"), {}),
        (lambda content: None, {"curve": b'{"step": 1}\n'}),
        (lambda content: None, {"terms": ODD_TERMS["10⁹ sequences"]}),
        (lambda content: content.update(primary="many", score=1e149, floor=-1e149), {}),
    ]
    for trial, (change, beside) in zip(PLANNED, changes, strict=False):
        reseal(run_folder(results, trial.id), change, **beside)
    page = report.build(results, PlainSuite(PLANNED)).read_text()  # type: ignore[arg-type]
    assert page.count("unreadable result") >= 4
    assert tracking.sync(results, "odd", [*PLANNED, *TIMED]) == len(PLANNED) - 4 + len(TIMED)
