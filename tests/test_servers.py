"""What `make dashboard` and `make lab` start answers this machine alone, and no page of another site."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


def commands(*arguments: str) -> dict[str, tuple[dict[str, str], list[str]]]:
    """The servers that make would start: name of the program → what it adds to the environment, and the options."""
    told = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.replace("\\\n", " ")
    lines = (shlex.split(line) for line in told.splitlines() if re.search(r"\.venv/bin/(mlflow|jupyter) ", line))
    found = {}
    for line in lines:
        settings = [word for word in line if re.fullmatch(r"[A-Z_]+=\w*", word)]
        name, *options = line[len(settings) :]
        found[Path(name).name] = (dict(setting.split("=") for setting in settings), options)
    return found


def test_both_listen_on_this_machine_alone_and_keep_their_checks() -> None:
    found = commands("dashboard", "lab")
    assert set(found) == {"mlflow", "jupyter"}
    for name, option in (("mlflow", "--host"), ("jupyter", "--ip")):
        words = found[name][1]
        assert words.count(option) == 1 and words[words.index(option) + 1] == "127.0.0.1"
    told = " ".join([*found["mlflow"][0], *found["mlflow"][1], *found["jupyter"][0], *found["jupyter"][1]])
    loosened = (
        r"allowed.hosts|cors|disable.security|allow_remote_access|token|password|allow_origin|allow-root|0\.0\.0\.0"
    )
    assert not re.search(loosened, told, re.IGNORECASE), told


@contextmanager
def serving(
    name: str, command: tuple[dict[str, str], list[str]], port: int, folder: Path, *more: str
) -> Iterator[psutil.Process]:
    """The server, once it answers; killed with all that it started."""
    words, environment = [sys.executable, "-m", name, *command[1], *more], os.environ | command[0]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while True:
            try:
                answer(port, "127.0.0.1")
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.3)
        yield psutil.Process(server.pid)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answer(port: int, host: str, path: str = "/") -> int:
    """The status of a request that names a host, as a browser does that was led here by another site."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        return connection.getresponse().status
    finally:
        connection.close()


def listening(process: psutil.Process) -> set[str]:
    """The addresses at which a process or its children can be reached."""
    found = set()
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a child that has just ended
            found |= {x.laddr.ip for x in member.net_connections("inet") if x.status == psutil.CONN_LISTEN}
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.slow
def test_the_dashboard_refuses_a_foreign_host_and_cannot_be_reached_from_elsewhere(tmp_path: Path) -> None:
    port = free_port()
    command = commands("dashboard", f"RESULTS={tmp_path}", f"PORT={port}")["mlflow"]
    with serving("mlflow", command, port, tmp_path) as server:
        assert answer(port, "127.0.0.1") == answer(port, "localhost") == 200
        assert answer(port, "evil.example") == 403
        assert answer(port, "evil.example", "/api/2.0/mlflow/experiments/get?experiment_id=0") == 403
        assert listening(server) == {"127.0.0.1"}


@pytest.mark.slow
def test_the_lab_asks_for_its_token_refuses_a_foreign_host_and_cannot_be_reached_from_elsewhere(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "notebooks").mkdir()
    unwatched = ("--no-browser", "--port", str(port), "--allow-root")
    with serving("jupyter", commands("lab")["jupyter"], port, tmp_path, *unwatched) as server:
        assert answer(port, "127.0.0.1", "/api/contents") == 403
        assert answer(port, "evil.example", "/api/contents") == 403
        assert answer(port, "evil.example", "/api") == 403 and answer(port, "127.0.0.1", "/api") == 200
        assert listening(server) == {"127.0.0.1"}
