"""A suite's archive: it comes back as it went, what is wrong with it is said in a sentence, and nothing of ours is lost."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_runs import write_failure, write_run

from benchmarks import __main__ as command_line
from benchmarks import exchange, portable, records, report
from benchmarks.elsewhere import recorded
from benchmarks.exchange import STAGING, Merged, Verdict, export, merge
from benchmarks.execution.lock import FolderInUse, locked
from benchmarks.execution.plan import plan
from benchmarks.parameters import InvalidParameter
from benchmarks.portable import MANIFEST, RUN_FILES, BadArchive, Run, open_archive
from benchmarks.records import Status, run_folder
from benchmarks.running import code_digests
from benchmarks.suite import Suite, load
from benchmarks.trial import Trial

SUITE = """# Command: rnnbench run invented.yaml
# Time: seconds
# Expected: nothing
name: invented
description: Four models on two tasks, with numbers that nobody measured.
parameter_budget: 20000
seeds: 2
grids:
  - {models: [lstm, tcn, hmm, floor], tasks: [adding, recall]}
"""
OTHER_MACHINE = {"processor": "another", "cores": 64, "git_commit": "fedcba987654"}


def invented_report(results: Path, suite: Suite, trials: list[Trial]) -> Path:
    """In place of the real one, which takes a notebook and many seconds."""
    folder = results / suite.name
    folder.mkdir(exist_ok=True)
    (folder / "suite.json").write_text(report._content(suite, trials))
    (folder / "table.csv").write_text("task,model\n")
    (folder / "mlflow.json").write_text("{}")
    (folder / "report.html").write_text("<!DOCTYPE html>")
    return folder / "report.html"


@pytest.fixture(autouse=True, scope="module")
def _no_notebook() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report, "build", invented_report)
        yield


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("suites") / "invented.yaml"
    path.write_text(SUITE)
    return load(str(path))


@pytest.fixture(scope="module")
def trials(suite: Suite) -> list[Trial]:
    return suite.trials(device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, trials: list[Trial]) -> Path:
    """A results folder in which everything happened: a skip, a failure, a stale, an interrupted and a missing trial."""
    results = tmp_path_factory.mktemp("source")
    for trial in trials:
        match trial.model, trial.task, trial.seed:
            case "hmm", "adding", _:
                write_failure(results, trial, Status.SKIPPED, "it cannot add")
            case "tcn", "adding", 0:
                write_failure(results, trial, Status.DIVERGED, "loss nan at step 7")
            case "tcn", "adding", 1:
                write_failure(results, trial, Status.INTERRUPTED, "the run was stopped")
            case "tcn", "recall", 0:
                write_run(results, trial, code_digest="of other code")
            case "tcn", "recall", 1:
                pass
            case _:
                write_run(results, trial)
                folder = run_folder(results, trial.id)
                (folder / "spec.json").write_bytes(
                    json.dumps(json.loads((folder / "result.json").read_text())["spec"]).encode()
                )
                (folder / "stderr.log").write_bytes(b"\xff not text\r\n")
    return results


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, source: Path, suite: Suite, trials: list[Trial]) -> Path:
    path = tmp_path_factory.mktemp("packed") / "invented-cpu.zip"
    export(source, suite, trials, path)
    return path


def merged(path: Path, results: Path) -> Merged:
    with open_archive(path) as archive:
        return merge(archive, results)


def verify(path: Path) -> dict[str, Run]:
    with open_archive(path) as archive:
        return archive.check()


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def sealed(files: Mapping[str, bytes], **told: object) -> dict[str, bytes]:
    """The files with a manifest that lists them rightly; ``told`` replaces what else it says."""
    manifest = json.loads(files[MANIFEST]) | told
    others = {path: content for path, content in files.items() if path != MANIFEST}
    manifest["files"] = [
        {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in others.items()
    ]
    return {**others, MANIFEST: json.dumps(manifest).encode()}


def write_zip(
    path: Path, files: Mapping[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def done(trials: list[Trial]) -> list[Trial]:
    """Those that `source` has a result for."""
    return [trial for trial in trials if (trial.model, trial.task, trial.seed) != ("tcn", "recall", 1)]


def find(trials: list[Trial], model: str, task: str, seed: int = 0) -> Trial:
    return next(trial for trial in trials if (trial.model, trial.task, trial.seed) == (model, task, seed))


def test_an_archive_comes_back_as_the_run_folders_that_went_into_it(
    packed: Path, source: Path, trials: list[Trial], tmp_path: Path
) -> None:
    found = merged(packed, tmp_path / "new")
    assert set(found.verdicts) == {trial.id for trial in done(trials)} and found.told == "15 added"
    assert tree(tmp_path / "new" / "runs") == tree(source / "runs")
    assert not (tmp_path / "new" / STAGING).exists()


def test_after_an_import_the_suite_finds_its_trials_done_and_the_stale_one_stale(
    packed: Path, source: Path, trials: list[Trial], tmp_path: Path
) -> None:
    found = merged(packed, tmp_path)
    here, there = plan(trials, code_digests(trials), tmp_path), plan(trials, code_digests(trials), source)
    assert here == there
    assert (len(here.done), len(here.missing), len(here.stale), len(here.torn)) == (13, 2, 1, 0)
    assert found.n_stale == 1 and "1 of 15 were made with other code" in next(found.remarks)


def test_the_same_records_give_the_same_bytes_in_the_order_of_their_paths(
    packed: Path, source: Path, suite: Suite, trials: list[Trial], tmp_path: Path
) -> None:
    export(source, suite, trials, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    paths = list(members(packed.read_bytes()))
    assert paths == [*sorted(set(paths) - {MANIFEST}), MANIFEST]
    assert {"report/report.html", "report/table.csv", "suite/suite.yaml"} <= set(paths)
    assert not any("mlflow" in path for path in paths)


def test_the_manifest_says_what_is_in_the_archive(packed: Path) -> None:
    with open_archive(packed) as archive:
        manifest = archive.manifest
    assert (manifest.schema, manifest.suite, manifest.device) == (1, "invented", "cpu")
    assert manifest.machines == ("<b>cpu</b>",) and manifest.git_commit
    assert manifest.statuses == {"diverged": 1, "interrupted": 1, "ok": 11, "skipped": 2}
    files = members(packed.read_bytes())
    assert {x.path: (x.size, x.sha256) for x in manifest.files} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in files.items() if path != MANIFEST
    }


def test_a_torn_result_is_left_out_and_told_and_a_missing_one_counted(
    packed: Path, suite: Suite, trials: list[Trial], tmp_path: Path
) -> None:
    merged(packed, tmp_path)
    torn, forged = find(trials, "lstm", "adding"), find(trials, "lstm", "recall")
    (run_folder(tmp_path, torn.id) / "metrics.jsonl").write_text("another curve\n")
    result = records.read_result(run_folder(tmp_path, forged.id))
    assert result is not None
    records.write_result(run_folder(tmp_path, forged.id), replace(result, spec={**result.spec, "seed": 7}))
    found = export(tmp_path, suite, trials, tmp_path / "archive.zip")
    assert found.n_missing == 1 and sum(found.manifest.statuses.values()) == 13
    assert [torn.id in found.torn[0], forged.id in found.torn[1]] == [True, True]
    assert "metrics.jsonl is not the file" in found.torn[0] and "not the hash of its spec" in found.torn[1]
    verify(tmp_path / "archive.zip")


def test_the_report_is_built_only_where_it_is_missing_or_older_than_a_result(
    packed: Path, suite: Suite, trials: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(report, "build", lambda *asked: (built.append(1), invented_report(*asked)))
    merged(packed, tmp_path)
    for n_built in (1, 1):
        export(tmp_path, suite, trials, tmp_path / "archive.zip")
        assert len(built) == n_built
    write_run(tmp_path, find(trials, "tcn", "recall", 1))
    export(tmp_path, suite, trials, tmp_path / "archive.zip")
    assert len(built) == 2


def test_nothing_to_export_is_one_sentence(suite: Suite, trials: list[Trial], tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="no such folder"):
        export(tmp_path / "absent", suite, trials, tmp_path / "archive.zip")
    with pytest.raises(InvalidParameter, match="no result of invented on cpu, so there is nothing to export"):
        export(tmp_path, suite, trials, tmp_path / "archive.zip")
    assert not list(tmp_path.glob("archive*"))


def test_an_export_that_fails_leaves_the_older_archive(
    source: Path, suite: Suite, trials: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(b"an older one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space"):
        export(source, suite, trials, path)
    assert tree(tmp_path) == {"archive.zip": b"an older one"}


# What is wrong with an archive.


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whichever_byte_is_flipped_the_check_fails_or_nothing_has_changed(packed: Path, data: st.DataObject) -> None:
    content = bytearray(packed.read_bytes())
    # Half of the time in the directory, which is small, and where most can be wrong.
    start = data.draw(st.sampled_from([0, content.index(b"PK\x01\x02")]))
    place = data.draw(st.integers(start, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = packed.with_name("flipped.zip")
    path.write_bytes(content)
    try:
        verify(path)
    except BadArchive as error:
        assert str(error).startswith("flipped.zip: ") and "\n" not in str(error)
    else:
        assert members(bytes(content)) == members(packed.read_bytes())


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_an_archive_cut_short_is_refused(packed: Path, length: int) -> None:
    content = packed.read_bytes()
    path = packed.with_name("cut.zip")
    path.write_bytes(content[: length % len(content)])
    with pytest.raises(BadArchive, match=r"^cut.zip: "):
        verify(path)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_member_dropped_added_doubled_or_changed_is_named(packed: Path, data: st.DataObject) -> None:
    files = members(packed.read_bytes())
    path = data.draw(st.sampled_from([path for path in files if path != MANIFEST]))
    how = data.draw(st.sampled_from(["dropped", "changed", "longer"]))
    changed = dict(files)
    if how == "dropped":
        del changed[path]
    elif how == "changed":
        changed[path] = (
            bytes(reversed(files[path])) if files[path] != files[path][::-1] else bytes(len(files[path]) + 1)
        )
    else:
        changed[path] = files[path] + b" "
    with pytest.raises(BadArchive, match=path):
        verify(write_zip(packed.with_name("changed.zip"), changed))


def test_a_member_more_or_twice_or_without_manifest_is_refused(packed: Path, tmp_path: Path) -> None:
    files = members(packed.read_bytes())
    with pytest.raises(BadArchive, match=r"runs/0123456789abcdef/stderr.log is not in manifest.json"):
        verify(write_zip(tmp_path / "more.zip", {**files, "runs/0123456789abcdef/stderr.log": b""}))
    with pytest.raises(BadArchive, match=r"it has no manifest.json, so it was not made by `rnnbench export`"):
        verify(write_zip(tmp_path / "none.zip", {path: x for path, x in files.items() if path != MANIFEST}))
    twice = write_zip(tmp_path / "twice.zip", files)
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("suite/suite.yaml", b"name: another")
    with pytest.raises(BadArchive, match="a member is there twice"):
        verify(twice)


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    for content in (b"", b"no zip", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        with pytest.raises(BadArchive, match=r"^some.zip: (not a zip|it has no manifest)"):
            verify(path)


HOSTILE_NAMES = [
    *("../evil", "runs/../../evil", "/tmp/evil", "C:\\evil", "runs/0123456789abcdef/../../../evil", "./manifest.json"),
    *("runs/0123456789abcdef/", "runs/0123456789abcdef", "runs/0123456789ABCDEF/result.json", "runs//result.json"),
    *(
        "runs/0123456789abcdef/result.json ",
        "runs/０123456789abcdef/result.json",
        "runs/é/result.json",
        "runs/\u202egnp",
    ),
    *(
        "runs/0123456789abcdef/weights.pkl",
        "suite/tuned/../x.yaml",
        "suite/tuned/runs.yaml",
        "report/mlflow.json",
        "\n",
    ),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_member_that_is_none_of_an_export_is_refused_and_nothing_is_written(
    packed: Path, tmp_path: Path, name: str
) -> None:
    files = members(packed.read_bytes())
    path = write_zip(tmp_path / "hostile.zip", sealed({**files, name: b"evil"}))
    before = tree(tmp_path)
    with pytest.raises(BadArchive, match=r"^hostile.zip: .* is no member of an export$") as refused:
        merged(path, tmp_path / "results")
    assert tree(tmp_path) == before and not (tmp_path / "results").exists()
    assert "\n" not in str(refused.value) and "\u202e" not in str(refused.value)


def test_a_name_that_only_the_manifest_has_is_refused(packed: Path, tmp_path: Path) -> None:
    files = members(packed.read_bytes())
    manifest = json.loads(files[MANIFEST])
    manifest["files"].append({"path": "../evil\n", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()})
    path = write_zip(tmp_path / "hostile.zip", {**files, MANIFEST: json.dumps(manifest).encode()})
    with pytest.raises(BadArchive, match=r"'../evil\\n' is missing"):
        merged(path, tmp_path / "results")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_is_refused(packed: Path, tmp_path: Path, kind: int) -> None:
    files: dict[str | zipfile.ZipInfo, bytes] = dict(members(packed.read_bytes()))
    link = zipfile.ZipInfo("report/report.html")
    link.external_attr = (kind | 0o777) << 16
    content = files.pop("report/report.html")
    path = write_zip(tmp_path / "link.zip", {**files, link: content})
    with pytest.raises(BadArchive, match=r"report/report.html is no plain file"):
        merged(path, tmp_path / "results")


def test_an_unusual_compression_is_refused(packed: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "lzma.zip", dict(members(packed.read_bytes())), zipfile.ZIP_LZMA)
    with pytest.raises(BadArchive, match="is packed in a way that an export does not use"):
        verify(path)


def test_a_bomb_is_unpacked_no_further_than_the_directory_says(packed: Path, tmp_path: Path) -> None:
    """A gigabyte of zeros that claims to be ten bytes: in directory, member header and manifest alike."""
    files, name = members(packed.read_bytes()), "report/table.csv"
    path = write_zip(tmp_path / "bomb.zip", sealed({**files, name: bytes(10)}))
    bomb = write_zip(tmp_path / "packed.zip", {**sealed({**files, name: bytes(10)}), name: bytes(5 * 2**20)})
    content = bytearray(bomb.read_bytes())
    size = (5 * 2**20).to_bytes(4, "little")
    assert content.count(size) == 2
    bomb.write_bytes(bytes(content).replace(size, (10).to_bytes(4, "little")))
    verify(path)
    read: list[int] = []
    with open_archive(bomb) as archive, pytest.raises(BadArchive, match=r"report/table.csv is damaged"):
        for piece in archive.pieces(name):
            read.append(len(piece))
    assert sum(read) <= 10


def test_an_archive_says_what_it_unpacks_to_and_is_refused_beyond_the_bound_before_anything_is_read_or_written(
    packed: Path, source: Path, suite: Suite, trials: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = sum(map(len, members(packed.read_bytes()).values()))
    with open_archive(packed) as archive:
        assert archive.n_bytes == unpacked and f"{unpacked / 1e6:,.1f} MB unpacked" in archive.size
    monkeypatch.setattr(portable, "LARGEST_UNPACKED", unpacked - 1)
    monkeypatch.setattr(exchange, "LARGEST_UNPACKED", 1000)
    with pytest.raises(
        BadArchive, match=f"it would unpack to {unpacked:,} bytes, more than the {unpacked - 1:,} allowed"
    ):
        merged(packed, tmp_path / "results")
    with pytest.raises(InvalidParameter, match="an archive may hold 1,000; export fewer trials"):
        export(source, suite, trials, tmp_path / "large.zip")
    assert not list(tmp_path.iterdir())


def test_a_small_file_that_claims_terabytes_is_refused_at_once(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members(packed.read_bytes()).items():
            archive.writestr(name, content)
        for entry in archive.infolist():
            entry.file_size = 2**40
    began = time.monotonic()
    with pytest.raises(BadArchive, match=r"it would unpack to [\d,]+ bytes, more than the 34,359,738,368 allowed"):
        merged(path, tmp_path / "results")
    assert time.monotonic() - began < 5 and not (tmp_path / "results").exists()


def test_members_larger_than_any_record_are_not_read_into_memory(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "LARGEST_READ", 100)
    with pytest.raises(BadArchive, match=r"manifest.json has .* bytes, more than any"):
        verify(packed)
    monkeypatch.setattr(portable, "LARGEST_READ", 10**5)
    files = members(packed.read_bytes())
    large = next(path for path in files if path.endswith("spec.json"))
    path = write_zip(tmp_path / "large.zip", sealed({**files, large: b" " * 10**5 + files[large]}))
    with pytest.raises(BadArchive, match=r"spec.json has .* bytes, more than any such file"):
        verify(path)


def test_an_archive_that_does_not_fit_on_the_disk_is_not_begun(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = exchange.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(exchange.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="bytes are to be unpacked and 1,000 are free"):
        merged(packed, tmp_path)
    assert not (tmp_path / "runs").exists()


def resealed(packed: Path, tmp_path: Path, change: Callable[[dict[str, bytes], str], None], **told: object) -> Path:
    """The archive after ``change`` (files, the folder of a run with a budget), with a manifest that agrees."""
    files = members(packed.read_bytes())
    specs = (path for path in files if path.endswith("spec.json") and b'"parameter_budget": 20000' in files[path])
    folder = next(specs).removesuffix("/spec.json")
    change(files, folder)
    return write_zip(tmp_path / "forged.zip", sealed(files, **told))


def test_records_that_disagree_are_refused_though_every_checksum_is_right(packed: Path, tmp_path: Path) -> None:
    def edit(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes], str], None]:
        def change(files: dict[str, bytes], folder: str) -> None:
            assert old in files[f"{folder}/{name}"]
            files[f"{folder}/{name}"] = files[f"{folder}/{name}"].replace(old, new, 1)
            if name == "result.json" and new:  # with a digest that is right, too
                content = json.loads(files[f"{folder}/{name}"])
                del content["digest"]
                content["digest"] = records._digest(content)
                files[f"{folder}/{name}"] = json.dumps(content).encode()

        return change

    def move(files: dict[str, bytes], folder: str) -> None:
        for name in RUN_FILES:
            if f"{folder}/{name}" in files:
                files[f"runs/{'0' * 16}/{name}"] = files.pop(f"{folder}/{name}")

    forgeries: list[tuple[Callable[[dict[str, bytes], str], None], str]] = [
        (edit("result.json", b'"parameter_budget": 20000', b'"parameter_budget": 20001'), "not the hash of its specif"),
        (edit("result.json", b'"parameter_budget": 20000', b'"parameter_budget": "x"'), "no specification of a trial"),
        (edit("result.json", b'"spec": {', b'"spec": {"more": 1,'), "not the hash of its specification"),
        (edit("spec.json", b'"parameter_budget": 20000', b'"parameter_budget": 20001'), "tell of different trials"),
        (edit("metrics.jsonl", b"50", b"51"), "metrics.jsonl is not the file this result was made with"),
        (edit("test_terms.npz", b"PK", b"PX"), "test_terms.npz is not the file this result was made with"),
        (edit("result.json", b'"status": "', b'"status": "x'), "Input should be 'ok'"),
        (edit("result.json", b'"schema": 3', b'"schema": 2'), "schema 2, expected 3"),
        (edit("result.json", b"{", b""), "cut short, or no result at all"),
        (lambda files, folder: files.update({f"{folder}/env.json": b"[]"}), "env.json holds no names and values"),
        (lambda files, folder: files.update({f"{folder}/env.json": b"[" * 10**5}), "env.json: nested too deeply"),
        (lambda files, folder: files.pop(f"{folder}/result.json") and None, "has no result.json"),
        (move, "belongs to trial"),
        (edit("result.json", b'"trial_id": "', b'"trial_id": "\\n\\u001b[31m'), "belongs to trial ��.31m"),
        (lambda files, folder: files.pop("suite/suite.yaml") and None, "does not hold the file of the suite"),
    ]
    for change, problem in forgeries:
        with pytest.raises(BadArchive, match=f"^forged.zip: .*({problem}).*$"):
            merged(resealed(packed, tmp_path, change), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_an_environment_that_a_kill_tore_is_no_reason_to_refuse_a_result(packed: Path, tmp_path: Path) -> None:
    def tear(files: dict[str, bytes], folder: str) -> None:
        files[f"{folder}/env.json"] = files[f"{folder}/env.json"][:-1]

    checked, whole = verify(resealed(packed, tmp_path, tear)), verify(packed)
    assert {trial_id: run.result for trial_id, run in checked.items()} == {x: run.result for x, run in whole.items()}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"device": "cuda"}, "device, machines or statuses are not those of its runs"),
        ({"machines": ["a better one"]}, "device, machines or statuses are not those of its runs"),
        ({"statuses": {"ok": 15}}, "device, machines or statuses are not those of its runs"),
        ({"schema": 2}, "it has schema 2, and this version of rnnbench reads 1"),
        ({"suite": "../evil"}, "'../evil' cannot be a suite's name"),
        ({"suite": "runs"}, "'runs' cannot be a suite's name"),
        ({"suite": 3}, "manifest.json: suite: Input should be a valid string"),
    ],
)
def test_a_manifest_that_tells_something_else_is_refused(
    packed: Path, tmp_path: Path, told: dict[str, object], problem: str
) -> None:
    with pytest.raises(BadArchive, match=f"^forged.zip: {problem}"):
        verify(resealed(packed, tmp_path, lambda *_: None, **told))


# Merging.


def test_what_is_here_already_is_left_and_what_would_be_run_again_is_replaced(
    packed: Path, source: Path, trials: list[Trial], tmp_path: Path
) -> None:
    merged(packed, tmp_path)
    kept = tree(tmp_path / "runs")
    assert merged(packed, tmp_path).told == "15 already here" and tree(tmp_path / "runs") == kept
    again = {name: find(trials, "lstm", "adding", seed) for seed, name in enumerate(["torn", "interrupted"])}
    again |= {"stale": find(trials, "lstm", "recall"), "half": find(trials, "floor", "adding")}
    (run_folder(tmp_path, again["torn"].id) / "result.json").write_text("{")
    write_failure(tmp_path, again["interrupted"], Status.INTERRUPTED, "the run was stopped")
    write_run(tmp_path, again["stale"], skill=0.1, code_digest="of other code")
    (run_folder(tmp_path, again["half"].id) / "result.json").unlink()
    found = merged(packed, tmp_path)
    assert {name: found.verdicts[trial.id] for name, trial in again.items()} == {
        **dict.fromkeys(["torn", "interrupted", "stale"], Verdict.REPLACED),
        "half": Verdict.ADDED,
    }
    assert found.told == "1 added, 3 put in place of one that would be run again, 11 already here"
    assert tree(tmp_path / "runs") == tree(source / "runs")
    assert len(list((tmp_path / "quarantine").iterdir())) == 4


def test_a_result_that_tells_something_else_is_a_conflict_and_ours_is_kept(
    packed: Path, trials: list[Trial], tmp_path: Path
) -> None:
    other, retimed = find(trials, "lstm", "adding"), find(trials, "lstm", "recall")
    failed = find(trials, "floor", "recall")
    write_run(tmp_path, other, skill=0.5)
    write_run(tmp_path, retimed, seconds={"train": 99.0}, memory={})
    write_failure(tmp_path, failed, Status.TIMEOUT, "too slow")
    ours = tree(tmp_path / "runs")
    found = merged(packed, tmp_path)
    assert found.told == "12 added, 1 already here, 2 in conflict"
    assert {x for x, verdict in found.verdicts.items() if verdict == Verdict.CONFLICT} == {other.id, failed.id}
    assert any("ours timeout; theirs ok, accuracy 0.125" in line for line in found.conflicts)
    assert {path: content for path, content in tree(tmp_path / "runs").items() if path in ours} == ours


def test_an_interrupted_trial_never_takes_the_place_of_a_result(
    packed: Path, trials: list[Trial], tmp_path: Path
) -> None:
    finished = find(trials, "tcn", "adding", 1)
    write_run(tmp_path, finished)
    assert merged(packed, tmp_path).verdicts[finished.id] == Verdict.SAME
    result = records.read_result(run_folder(tmp_path, finished.id))
    assert result is not None and result.status == Status.OK


def on(trials: list[Trial], device: str) -> list[Trial]:
    return [replace(trial, device=device) for trial in trials]  # type: ignore[arg-type]


def test_an_archive_of_another_device_class_is_refused_naming_both(
    packed: Path, source: Path, suite: Suite, trials: list[Trial], tmp_path: Path
) -> None:
    gpu = tmp_path / "gpu"
    # Another seed of one of the models is enough: its mean would stand beside ours.
    alike = replace(find(trials, "lstm", "adding"), seed=11, device="cuda")
    write_run(gpu, alike)
    path = tmp_path / "invented-cuda.zip"
    export(gpu, suite, [alike], path)
    before = tree(source / "runs")
    with pytest.raises(BadArchive) as refused:
        merged(path, source)
    assert str(refused.value) == (
        f"invented-cuda.zip holds trials of invented run on cuda, and {source} the same run on cpu, which must not be put "
        "together; give another folder with --results"
    )
    assert tree(source / "runs") == before
    assert merged(path, tmp_path / "another").told == "1 added"
    with pytest.raises(BadArchive, match=r"run on cpu, and .* the same run on cuda"):
        merged(packed, gpu)


def test_fits_by_the_clock_of_two_machines_are_refused_and_others_remarked(
    suite: Suite, trials: list[Trial], tmp_path: Path
) -> None:
    first = find(trials, "lstm", "adding")
    for timed in (False, True):
        fit = {**first.fit, "seconds": 5.0 if timed else None}
        theirs, ours = (replace(first, fit=fit, seed=seed) for seed in (0, 1))
        here, there = tmp_path / f"here {timed}", tmp_path / f"there {timed}"
        write_run(there, theirs)
        write_run(here, ours)
        (run_folder(here, ours.id) / "env.json").write_text(json.dumps(OTHER_MACHINE))
        export(there, suite, [theirs], tmp_path / "archive.zip")
        if timed:
            with pytest.raises(BadArchive, match=r"run on <b>cpu</b>, and .* the same run on another, 64 cores"):
                merged(tmp_path / "archive.zip", here)
        else:
            found = merged(tmp_path / "archive.zip", here)
            assert found.told == "1 added" and "on 2 machines (<b>cpu</b>; another, 64 cores)" in next(found.remarks)


def test_a_trial_whose_model_is_not_here_is_imported_and_counted_as_made_by_other_code(
    suite: Suite, trials: list[Trial], tmp_path: Path
) -> None:
    there = tmp_path / "there"
    trial = find(trials, "lstm", "adding")
    write_run(there, trial)
    plugin = replace(trial, model="of-a-plugin")
    result = records.read_result(run_folder(there, trial.id))
    assert result is not None
    folder = run_folder(there, plugin.id)
    run_folder(there, trial.id).rename(folder)
    records.write_result(folder, replace(result, trial_id=plugin.id, spec={**result.spec, "model": "of-a-plugin"}))
    export(there, suite, [plugin], tmp_path / "archive.zip")
    found = merged(tmp_path / "archive.zip", tmp_path / "here")
    assert (found.told, found.n_stale) == ("1 added", 1)


def test_a_kill_between_two_trials_leaves_whole_ones_and_the_next_import_adds_the_rest(
    packed: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, n_left = Path.rename, iter([True] * 4)

    def killed(self: Path, target: Path) -> Path:
        if not next(n_left, False):
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        patched.setattr(exchange, "_remove", lambda _: None)  # a kill clears nothing away
        with pytest.raises(KeyboardInterrupt):
            merged(packed, tmp_path)
    assert len(list((tmp_path / STAGING).iterdir())) == 1
    moved = tree(tmp_path / "runs")
    assert moved and moved.items() <= tree(source / "runs").items()
    assert merged(packed, tmp_path).told == "11 added, 4 already here"
    assert tree(tmp_path / "runs") == tree(source / "runs") and not (tmp_path / STAGING).exists()


def test_neither_exports_nor_imports_while_trials_run(
    packed: Path, source: Path, suite: Suite, trials: list[Trial], tmp_path: Path
) -> None:
    with locked(source):
        with pytest.raises(FolderInUse):
            export(source, suite, trials, tmp_path / "archive.zip")
        with pytest.raises(FolderInUse):
            merged(packed, source)


def test_the_file_of_a_suite_that_the_project_lacks_comes_along_and_asks_for_the_same_trials(
    packed: Path, trials: list[Trial], tmp_path: Path
) -> None:
    path = merged(packed, tmp_path).suite
    assert path == tmp_path / "invented" / "suite.yaml"
    assert [trial.id for trial in load(str(path)).trials(device="cpu")] == [trial.id for trial in trials]
    path.write_text("mine")
    assert merged(packed, tmp_path).suite == path and path.read_text() == "mine"


# Looking at what another machine ran.


def test_trials_of_a_gpu_can_be_looked_at_where_there_is_none(
    suite: Suite, trials: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert recorded(suite, "cuda", tmp_path) == on(trials, "cuda")
    assert recorded(suite, "auto", tmp_path) == trials


def test_costs_are_this_machines_or_where_it_has_measured_none_those_that_the_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = tmp_path / "timed.yaml"
    path.write_text(
        SUITE.replace("invented", "timed") + "  - {mode: timing, models: [lstm], tasks: [adding], seeds: 2}\n"
    )
    timed = load(str(path))
    planned = timed.trials(device="cpu")
    here = [trial for trial in planned if trial.mode == "timing"]
    assert len(here) == 2 and recorded(timed, "cpu", tmp_path) == planned
    there = [replace(trial, machine={**trial.machine, "processor": "another"}) for trial in here]
    write_failure(tmp_path, there[1], Status.ERROR, "no matter")
    assert recorded(timed, "cpu", tmp_path) == [*planned[: -len(here)], *there]
    write_failure(tmp_path, here[0], Status.ERROR, "no matter")
    assert recorded(timed, "cpu", tmp_path) == planned
    on_gpu = replace(here[0], device="cuda", machine={**here[0].machine, "gpu": "H200"})
    write_failure(tmp_path, on_gpu, Status.ERROR, "no matter")
    found = recorded(timed, "cuda", tmp_path)
    assert found[-2] == on_gpu and {trial.device for trial in found} == {"cuda"} and len(found) == len(planned)


# The command line.


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["rnnbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


def test_export_check_and_import_from_the_command_line(
    source: Path,
    suite: Suite,
    trials: list[Trial],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, here = source / "invented" / "invented-cpu.zip", tmp_path / "here"
    assert call(monkeypatch, "export", suite.path, "--results", source, "--device", "cpu") == 0
    assert f"1 of 16 trials have no result yet\nArchive: {file}\n" in capsys.readouterr().out
    assert call(monkeypatch, "export", "--check", file) == 0
    assert capsys.readouterr().out.startswith(
        "invented-cpu.zip is right: 15 trials of invented on cpu: 1 diverged, 1 inter"
    )
    assert call(monkeypatch, "import", file, "--results", here) == 0
    shown = capsys.readouterr().out
    assert f"Into {here}: 15 added\n1 of 15 were made with other code" in shown
    assert f"Next: rnnbench run {here}/invented/suite.yaml --device cpu --results {here}\n" in shown
    write_run(here, find(trials, "lstm", "adding"), skill=0.5)
    assert call(monkeypatch, "import", file, "--results", here) == 1
    assert capsys.readouterr().err.startswith("conflict, ours is kept: lstm on adding, seed 0 (")


def test_exit_codes_of_export_and_import(
    packed: Path,
    source: Path,
    suite: Suite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.zip"
    bad.write_bytes(packed.read_bytes()[:-1])
    for arguments, code, message in [
        (("export", "--check", bad), 1, "bad.zip: not a zip, or damaged"),
        (("import", bad, "--results", tmp_path / "here"), 1, "bad.zip: not a zip, or damaged"),
        (("export", "--check", tmp_path / "absent.zip"), 2, "does not exist"),
        (("import", tmp_path / "absent.zip"), 2, "does not exist"),
        (("export",), 2, "give either SUITE"),
        (("export", suite.path, "--check", bad), 2, "give either SUITE"),
        (("export", "--check", bad, "--output", bad), 2, "give either SUITE"),
        (("export", suite.path, "--results", tmp_path), 2, "holds no result of invented"),
        (("export", suite.path, "--results", source, "--output", tmp_path / "no" / "x.zip"), 3, "No such file"),
    ]:
        assert call(monkeypatch, *arguments) == code, arguments
        shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert message in shown, shown
    with locked(source):
        assert call(monkeypatch, "import", packed, "--results", source) == 3
    assert "is running trials in" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_suite_that_was_run_elsewhere_is_done_here_with_the_same_report(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(SUITE.replace("invented", "tiny").replace("[lstm, tcn, hmm, floor]", "[hmm, floor]"))
    there, here, archive = tmp_path / "there", tmp_path / "here", tmp_path / "tiny.zip"

    def rnnbench(*arguments: object, expected: int = 0) -> str:
        command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == expected, ended.stdout + ended.stderr
        return ended.stdout

    asked = (suite, "--device", "cpu", "--results")
    rnnbench("run", *asked, there, "--no-report")
    rnnbench("export", *asked, there, "--output", archive)
    rnnbench("export", "--check", archive)
    rnnbench("import", archive, "--results", here)
    assert "Trials: 8 done, 0 missing, 0 stale, 0 torn" in rnnbench("run", *asked, here, "--dry-run")
    assert "8 trials of tiny written to MLflow" in rnnbench("sync", *asked, here)
    rnnbench("report", *asked, here)
    pages = [(folder / "tiny" / "report.html").read_text().replace(str(folder), "") for folder in (there, here)]
    assert re.sub(r"cell-id=\w+", "", pages[0]) == re.sub(r"cell-id=\w+", "", pages[1])
    assert "0 trials of tiny written to MLflow" in rnnbench("sync", *asked, here)
