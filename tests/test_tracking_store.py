"""MLflow's local database: killed or out of space while its schema is created, broken in any other way, in a folder with an
odd name."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from synthetic_runs import write_run
from test_tracking_faults import PLANNED, ROOT, assert_whole, mirror

from benchmarks import tracking
from benchmarks.tracking import StoreUnreachable, sync

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")

SYNC = (
    "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from test_tracking_faults import *\n"
    "sync(Path(sys.argv[1]), 'suite', PLANNED)"
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A new store, which takes seconds to create."""
    folder = tmp_path_factory.mktemp("database")
    tracking._create_database(folder)
    return (folder / "mlflow.db").read_bytes()


def recorded(results: Path) -> Path:
    for trial in PLANNED:
        write_run(results, trial)
    return results


def killed_after(results: Path, seconds: float) -> bool:
    """Kills a first `sync` so long after it began to create the database; whether it was still creating it."""
    process = subprocess.Popen([sys.executable, "-c", SYNC, str(results)], cwd=ROOT)
    while not creating(results) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGSTOP)
    still = creating(results)
    process.kill()
    process.wait()
    return still


def creating(results: Path) -> bool:
    return any(results.glob(f"{tracking.PART}*"))


@pytest.mark.parametrize(
    "seconds", [0.3, *(pytest.param(x, marks=pytest.mark.slow) for x in (0.0, 0.1, 0.6, 1.0, 1.5))]
)
def test_a_kill_while_the_schema_is_created_leaves_no_database_and_the_next_run_makes_one(
    tmp_path: Path, seconds: float
) -> None:
    results = recorded(tmp_path)
    if killed_after(results, seconds):
        assert not (results / "mlflow.db").exists()
    assert mirror(results).close() is None
    assert_whole(results)
    assert not creating(results) and not list(results.glob("mlflow-broken-*"))


def begun(path: Path, whole: bytes) -> None:
    """As a kill between the first tables and the migrations left it, before it was created beside."""
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = create_sqlalchemy_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("CREATE TABLE datasets (dataset_uuid VARCHAR(36))")


def without_a_table(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE latest_metrics")


def garbage(path: Path, whole: bytes) -> None:
    path.write_bytes(b"x" * 100_000)


def cut_short(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[: len(whole) // 2])


def overwritten(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))


def of_another_version(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")


@pytest.mark.parametrize("broken", [begun, without_a_table, garbage, cut_short, overwritten, of_another_version])
def test_a_broken_database_is_set_aside_and_rebuilt_from_the_run_folders_with_one_sentence(
    tmp_path: Path, database: bytes, broken: Callable[[Path, bytes], None]
) -> None:
    results = recorded(tmp_path)
    other = results / "other" / "mlflow.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"uri": tracking.tracking_uri(results), "logged": {"a": "b"}}))
    broken(results / "mlflow.db", database)
    if broken is begun:
        remarks: list[str] = []
        assert sync(results, "suite", PLANNED, remarks.append) == len(PLANNED)
    else:
        remarks = [str(mirror(results).close())]
    (remark,) = remarks
    (aside,) = results.glob("mlflow-broken-*.db")
    assert "could not be read" in remark and str(aside) in remark and "\n" not in remark
    assert_whole(results)
    assert not other.exists(), "what another suite had logged is logged again"
    assert mirror(results).close() is None


def test_a_full_disk_while_the_schema_is_created_costs_a_sentence_and_is_made_good(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        recorded(disk)
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(b"x" * (free - 200_000))
        with pytest.raises(StoreUnreachable, match=r"full|I/O"):
            sync(disk, "suite", PLANNED)
        assert not (disk / "mlflow.db").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert mirror(disk).close() is None
        assert_whole(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_results_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = recorded(tmp_path / "50%20of? it#1 {x}&y=z")
    assert mirror(results).close() is None
    assert_whole(results)
    assert [path.name for path in tmp_path.iterdir()] == [results.name]
    assert {"mlflow.db", "mlartifacts"} <= {path.name for path in results.iterdir()}


def test_the_ledgers_of_a_store_that_was_deleted_are_void(tmp_path: Path) -> None:
    results = recorded(tmp_path)
    sync(results, "suite", PLANNED)
    (results / "mlflow.db").unlink()
    sync(results, "other", PLANNED[:1])
    assert tracking.Ledger(results, "suite").logged == {}
    sync(results, "suite", PLANNED)
    client = MlflowClient(tracking_uri=tracking.tracking_uri(results))
    assert {found.name for found in client.search_experiments()} >= {"suite", "other"}


def test_a_writer_needs_no_shared_memory(tmp_path: Path) -> None:
    code = (
        "import _multiprocessing, errno\n"
        "def refused(*_): raise OSError(errno.EROFS, 'Read-only file system')\n"
        "_multiprocessing.SemLock = refused\n"
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from test_tracking_faults import *\n"
        "print(mirror(Path(sys.argv[1])).close())"
    )
    results = recorded(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "None\n", done.stderr
    assert_whole(results)
