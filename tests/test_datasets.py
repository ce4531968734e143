"""Data sets by name and hash: what is missing, torn, wrong or asked for by several at once."""

import csv
import hashlib
import http.server
import io
import multiprocessing
import re
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from benchmarks import __main__ as command_line
from benchmarks import datasets
from benchmarks.datasets import DataMissing
from benchmarks.tasks.registry import TASKS

CONTENT = b"1,2\n3,4\n"
MEMBERS = {"a.wav": b"first", "b.wav": b"second"}


def archive() -> bytes:
    """As a host of repositories packs it: one folder around everything, and files that are not asked for."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr("repository-1/README.md", "about")
        for name, content in MEMBERS.items():
            file.writestr(f"repository-1/clips/{name}", content)
    return whole.getvalue()


class Served(NamedTuple):
    """asked: the paths, in order. half: set once half of the slow file has been sent."""

    address: str
    asked: list[str]
    half: threading.Event


@pytest.fixture
def server():
    """Serves CONTENT and an archive, and counts what was asked of it."""
    half, done = threading.Event(), threading.Event()
    asked: list[str] = []
    pages = {"/table.csv": CONTENT, "/clips.zip": archive(), "/page.zip": b"<html>moved</html>", "/slow.csv": CONTENT}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            page = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if self.path == "/slow.csv" and asked.count("/slow.csv") == 1:  # the first who asks gets half of it
                self.wfile.write(page[:4])
                self.wfile.flush()
                half.set()
                done.wait(60)
                return
            self.wfile.write(page)

        def log_message(self, *_):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield Served(f"http://127.0.0.1:{running.server_port}", asked, half)
        done.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def table(tmp_path, monkeypatch, server):
    """A table of data sets of which ``wrong`` is hashed for something else, and an empty cache."""
    address = server.address
    lines = "".join(f"{hashlib.sha256(MEMBERS[name]).hexdigest()}  {name}\n" for name in sorted(MEMBERS))
    right, folder = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(lines.encode()).hexdigest()
    rows = [
        ("name", "file", "bytes", "sha256", "licence", "url"),
        ("small", "table.csv", 8, right, "MIT", f"{address}/table.csv"),
        ("wrong", "table.csv", 8, hashlib.sha256(b"else").hexdigest(), "MIT", f"{address}/table.csv"),
        ("clips", "clips/", 11, folder, "MIT", f"{address}/clips.zip"),
        ("torn", "clips/", 11, right, "MIT", f"{address}/clips.zip"),
        ("page", "clips/", 11, folder, "MIT", f"{address}/page.zip"),
        ("slow", "table.csv", 8, right, "MIT", f"{address}/slow.csv"),
        ("gone", "table.csv", 8, right, "MIT", "http://127.0.0.1:9/table.csv"),
    ]
    write_rows(tmp_path / "datasets.csv", rows)
    monkeypatch.setattr(datasets, "TABLE", tmp_path / "datasets.csv")
    monkeypatch.setenv("RNNBENCH_DATA", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def forget():
    datasets.files.cache_clear()
    datasets.path.cache_clear()


def test_a_missing_file_is_downloaded_once_and_then_used(table, server):
    assert not datasets.is_here("small")
    assert datasets.path("small", "table.csv").read_bytes() == CONTENT
    forget()
    assert datasets.path("small", "table.csv") == table / "small" / "table.csv"
    assert datasets.is_here("small") and server.asked == ["/table.csv"]


def test_several_at_once_download_once(table, server):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: datasets.path.__wrapped__("small", "table.csv"), range(8)))
    assert paths == {table / "small" / "table.csv"} and server.asked == ["/table.csv"]


def test_the_folder_of_an_archive_is_taken_out_and_checked(table):
    folder = datasets.path("clips", "clips/")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == MEMBERS
    assert {entry.name for entry in (table / "clips").iterdir()} <= {"clips", ".lock"}


def in_processes(n, name):
    """That many processes that ask for a data set at once; forked, so that they see the table of this one."""
    context = multiprocessing.get_context("fork")
    made = [context.Process(target=datasets.path, args=(name, "table.csv")) for _ in range(n)]
    for process in made:
        process.start()
    return made


def test_two_processes_at_once_download_once(table, server):
    for process in in_processes(2, "small"):
        process.join(60)
        assert process.exitcode == 0
    assert datasets.path("small", "table.csv").read_bytes() == CONTENT and server.asked == ["/table.csv"]


def test_a_download_that_is_killed_half_way_is_never_read_and_starts_again(table, server):
    (process,) = in_processes(1, "slow")
    assert server.half.wait(60)
    process.kill()
    process.join()
    assert not datasets.is_here("slow")
    assert datasets.path("slow", "table.csv").read_bytes() == CONTENT


def test_what_a_killed_or_wrong_archive_left_does_not_stay_in_the_way(table, monkeypatch):
    with pytest.raises(DataMissing):
        datasets.path("page", "clips/")
    (table / "clips" / "clips.partial").mkdir(parents=True)
    (table / "clips" / "clips.partial" / "left.wav").write_bytes(b"by a kill")
    assert len(list(datasets.path("clips", "clips/").iterdir())) == len(MEMBERS)
    assert not [path for path in (table / "page").iterdir() if path.suffix == ".zip"]


def test_missing_data_end_a_run_once_before_any_trial_with_one_sentence_and_exit_code_3(table, monkeypatch, capsys):
    content = csv_rows(datasets.TABLE)
    content.append(("fsdd", "recordings/", 1, "0" * 64, "MIT", "http://127.0.0.1:9/recordings.zip"))
    write_rows(datasets.TABLE, content)
    forget()
    results = table.parent / "results"
    arguments = ["run", "speech", "--tasks", "spoken_digits", "--results", str(results), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["rnnbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    told = capsys.readouterr()
    assert ended.value.code == 3 and told.out == ""
    assert told.err.count("\n") == 1 and told.err.startswith("data set fsdd: ") and "RNNBENCH_DATA" in told.err
    assert not results.exists()


@pytest.mark.parametrize("name", ["wrong", "torn", "gone", "page"])
def test_what_cannot_be_had_is_one_sentence_and_leaves_nothing_that_is_read(table, name):
    file = next(iter(datasets.files(name)))
    with pytest.raises(DataMissing, match=f"data set {name}: .* put the file there, or name a folder"):
        datasets.path(name, file)
    assert not datasets.is_here(name)


def test_a_torn_file_in_the_cache_is_refused(table):
    (table / "small").mkdir(parents=True)
    (table / "small" / "table.csv").write_bytes(CONTENT[:3])
    with pytest.raises(DataMissing, match=r"is not the file it should be .*; delete it"):
        datasets.path("small", "table.csv")


def test_a_cache_that_cannot_be_written_is_one_sentence(table):
    table.write_text("a file where the folder should be")
    with pytest.raises(DataMissing, match="put the file there"):
        datasets.path("small", "table.csv")


def test_every_row_names_a_hash_a_licence_and_a_pinned_address():
    with datasets.TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["name"], row["file"]) for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"]) and int(row["bytes"]) > 0
        assert row["licence"] and row["url"].startswith("https://")
    assert {name for task in TASKS.values() for name in task.datasets} <= {row["name"] for row in rows}
