"""Data sets by name and hash: what is missing, torn, wrong or asked for by several at once."""

import csv
import hashlib
import http.server
import io
import re
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

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


@pytest.fixture
def server():
    """Serves CONTENT and an archive, and counts what was asked of it."""
    asked: list[str] = []
    pages = {"/table.csv": CONTENT, "/clips.zip": archive()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pages[self.path])

        def log_message(self, *_):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


@pytest.fixture
def table(tmp_path, monkeypatch, server):
    """A table of data sets of which ``wrong`` is hashed for something else, and an empty cache."""
    address, _ = server
    lines = "".join(f"{hashlib.sha256(MEMBERS[name]).hexdigest()}  {name}\n" for name in sorted(MEMBERS))
    right, folder = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha256(lines.encode()).hexdigest()
    rows = [
        ("name", "file", "bytes", "sha256", "licence", "url"),
        ("small", "table.csv", 8, right, "MIT", f"{address}/table.csv"),
        ("wrong", "table.csv", 8, hashlib.sha256(b"else").hexdigest(), "MIT", f"{address}/table.csv"),
        ("clips", "clips/", 11, folder, "MIT", f"{address}/clips.zip"),
        ("torn", "clips/", 11, right, "MIT", f"{address}/clips.zip"),
        ("gone", "table.csv", 8, right, "MIT", "http://127.0.0.1:9/table.csv"),
    ]
    with (tmp_path / "datasets.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    monkeypatch.setattr(datasets, "TABLE", tmp_path / "datasets.csv")
    monkeypatch.setenv("RNNBENCH_DATA", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()


def forget():
    datasets.files.cache_clear()
    datasets.path.cache_clear()


def test_a_missing_file_is_downloaded_once_and_then_used(table, server):
    assert not datasets.is_here("small")
    assert datasets.path("small", "table.csv").read_bytes() == CONTENT
    forget()
    assert datasets.path("small", "table.csv") == table / "small" / "table.csv"
    assert datasets.is_here("small") and server[1] == ["/table.csv"]


def test_several_at_once_download_once(table, server):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: datasets.path.__wrapped__("small", "table.csv"), range(8)))
    assert paths == {table / "small" / "table.csv"} and server[1] == ["/table.csv"]


def test_the_folder_of_an_archive_is_taken_out_and_checked(table):
    folder = datasets.path("clips", "clips/")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == MEMBERS
    assert {entry.name for entry in (table / "clips").iterdir()} <= {"clips", ".lock"}


@pytest.mark.parametrize("name", ["wrong", "torn", "gone"])
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
