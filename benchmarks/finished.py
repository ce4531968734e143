"""What a suite's last complete run printed, and whether it would print the same again: then nothing needs torch, or to run.

results/<suite>/finished.json holds the closing table with a fingerprint of all that it follows from: the project's code, the
suite's file and its tuned configurations, the trials' records, the report, what MLflow holds, the device and the terminal.
Where one of them changed, the run looks at everything again. Of the records, which may be thousands, only the stamps are
looked at: results that were copied, with nothing changed in them, are looked at again too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console

from benchmarks.datasets import CARRIERS
from benchmarks.machine import processor
from benchmarks.stamps import stamp

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ("result.json", "metrics.jsonl", "test_terms.npz")
OUTCOMES = ("report.html", "suite.json", "mlflow.json")


class Outcome(NamedTuple):
    """What a run says at its end. table: as the terminal takes it. report: the page's path, None where none was asked for."""

    table: str
    n_failed: int
    report: str | None


@dataclass(frozen=True)
class Run:
    """A whole suite on a device, as a person asked for it. suite: a name or a path."""

    suite: str
    device: str
    results: Path

    def recall(self) -> Outcome | None:
        """What `remember` was told; None where anything may have changed since."""
        folder = self._folder()
        # The code of a plug-in may lie anywhere and change under its version, as an author's own does: then look again.
        if folder is None or not (folder / "finished.json").is_file() or entry_points(group="rnnbench.models"):
            return None
        try:
            kept = json.loads((folder / "finished.json").read_text())
            unchanged = kept["fingerprint"] == self._fingerprint(folder, kept["trials"])
            return Outcome(**kept["outcome"]) if unchanged else None
        except (ValueError, KeyError, TypeError):  # torn by a kill: then it says nothing
            return None

    def remember(self, trials: Sequence[str], outcome: Outcome) -> None:
        """Keeps what the run over ``trials``, their ids, came to."""
        folder = self._folder()
        if folder is None:
            return
        fingerprint = self._fingerprint(folder, trials)
        kept = {"fingerprint": fingerprint, "trials": list(trials), "outcome": outcome._asdict()}
        part = folder / "finished.json.part"
        part.write_text(json.dumps(kept))
        part.replace(folder / "finished.json")

    def _folder(self) -> Path | None:
        """The suite's folder in the results; None where its file is not there or not right, which loading it will explain."""
        try:
            content: Any = yaml.safe_load(self._file().read_bytes())
            return self.results / content["name"]
        except (OSError, yaml.YAMLError, TypeError, KeyError):
            return None

    def _file(self) -> Path:
        return Path(self.suite) if Path(self.suite).suffix else ROOT / "benchmarks" / "suites" / f"{self.suite}.yaml"

    def _fingerprint(self, folder: Path, trials: Sequence[str]) -> str:
        digest = hashlib.sha256(repr([*trials, *self._surroundings()]).encode())
        for path in self._files(folder):
            digest.update(str(path).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"absent")
        for trial in trials:
            digest.update(repr([stamp(self.results / "runs" / trial / name) for name in RECORDS]).encode())
        return digest.hexdigest()

    def _surroundings(self) -> Iterator[object]:
        console = Console()
        yield os.cpu_count(), processor()  # timing trials are about one machine
        yield from (
            self.device,
            os.environ.get("CUDA_VISIBLE_DEVICES"),
            Path("/dev/nvidiactl").exists(),
            *(version(package) for package in ("torch", *CARRIERS)),
        )
        yield from (os.environ.get("MLFLOW_TRACKING_URI"), (self.results / "mlflow.db").exists())
        yield from (console.width, console.is_terminal, console.color_system)

    def _files(self, folder: Path) -> Iterator[Path]:
        yield self._file()
        yield self._file().parent / "tuned" / f"{folder.name}.yaml"
        for package in ("models", "benchmarks"):
            yield from sorted((ROOT / package).rglob("*.py"))
        yield ROOT / "benchmarks" / "datasets.csv"
        yield from sorted((ROOT / "notebooks").glob("*.ipynb"))
        yield from (folder / name for name in OUTCOMES)
