"""A server of MLflow's REST interface, as far as the tracker speaks it, that can be slow, fall silent or die."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]


@dataclass
class Store:
    """What the server knows. delay_s: before each answer. silent_after: requests that it answers before it falls silent for
    good; dies_after: before it closes every connection; None: never."""

    artifacts: Path
    delay_s: float = 0.0
    silent_after: int | None = None
    dies_after: int | None = None
    n_asked: int = 0
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Json] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def children(self) -> list[Json]:
        """The runs that are a trial's, and not deleted."""
        alive = [run for run in self.runs.values() if run["info"]["lifecycle_stage"] == "active"]
        return [run for run in alive if any(tag["key"] == "trial_id" for tag in run["data"]["tags"])]

    def answer(self, path: str, asked: Json) -> Json | None:
        """None: there is no such thing."""
        known: dict[str, Callable[[Json], Json | None]] = {
            "experiments/get-by-name": self._experiment,
            "experiments/create": self._create_experiment,
            "runs/create": self._create_run,
            "runs/get": lambda x: {"run": self.runs[x["run_id"]]},
            "runs/search": lambda x: {
                "runs": [r for r in self.runs.values() if r["info"]["lifecycle_stage"] == "active"]
            },
            "runs/log-batch": self._log_batch,
            "runs/set-tag": lambda x: self._tags(x["run_id"], [x]),
            "runs/update": self._update,
            "runs/delete": lambda x: self._info(x["run_id"], lifecycle_stage="deleted"),
        }
        answer = known.get(path.partition("/mlflow/")[2])
        return None if answer is None else answer(asked)

    def _experiment(self, asked: Json) -> Json | None:
        number = self.experiments.get(asked["experiment_name"])
        told = {"experiment_id": number, "name": asked["experiment_name"], "lifecycle_stage": "active"}
        return None if number is None else {"experiment": told | {"artifact_location": self.artifacts.as_uri()}}

    def _create_experiment(self, asked: Json) -> Json:
        self.experiments[asked["name"]] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[asked["name"]]}

    def _create_run(self, asked: Json) -> Json:
        number = uuid.uuid4().hex
        info = {"run_id": number, "run_uuid": number, "experiment_id": asked["experiment_id"], "status": "RUNNING"}
        info |= {"lifecycle_stage": "active", "artifact_uri": (self.artifacts / number).as_uri()}
        data: Json = {"tags": list(asked.get("tags", [])), "metrics": [], "params": []}
        self.runs[number] = {"info": info, "data": data, "inputs": {}}
        return {"run": self.runs[number]}

    def _log_batch(self, asked: Json) -> Json:
        for kind in ("metrics", "params"):
            self.runs[asked["run_id"]]["data"][kind] += asked.get(kind, [])
        return self._tags(asked["run_id"], asked.get("tags", []))

    def _tags(self, run_id: str, tags: list[Json]) -> Json:
        self.runs[run_id]["data"]["tags"] += [{"key": tag["key"], "value": tag["value"]} for tag in tags]
        return {}

    def _info(self, run_id: str, **changes: object) -> Json:
        self.runs[run_id]["info"] |= changes
        return {}

    def _update(self, asked: Json) -> Json:
        self._info(asked["run_id"], **{name: asked[name] for name in ("status", "end_time") if name in asked})
        return {"run_info": self.runs[asked["run_id"]]["info"]}


@contextmanager
def serving(store: Store) -> Iterator[str]:
    """The address of a server over a store, on this machine alone."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            address = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = dict(parse_qsl(address.query)) | (json.loads(body) if body else {})
            with lock:
                store.n_asked += 1
                n = store.n_asked
            time.sleep(store.delay_s)
            if store.dies_after is not None and n > store.dies_after:
                self.close_connection = True
                return
            if store.silent_after is not None and n > store.silent_after:
                store.released.wait()
                return
            with lock:
                found = store.answer(address.path, asked)
            absent = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {address.path}"}
            content = json.dumps(absent if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            store.released.set()
            server.shutdown()
            thread.join()
