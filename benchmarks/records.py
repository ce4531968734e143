"""The run folder, ``results/runs/<trial id>/``: the only truth. Tables, MLflow and reports are rebuilt from it.

``spec.json  env.json  metrics.jsonl  test_terms.npz  notebook.ipynb  stderr.log`` and ``result.json``, which is written last
and atomically: a folder without a valid one is a trial that has not been run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from benchmarks import terms
from benchmarks.plain_text import plain
from benchmarks.stamps import Stamp, stamp
from benchmarks.timing import Cost
from benchmarks.trial import Trial

SCHEMA = 3
RESULT = "result.json"
CURVE = "metrics.jsonl"
TERMS = "test_terms.npz"
"""The terms of each metric, test sequence by test sequence; see `benchmarks.terms`."""
BESIDE = {CURVE: "curve_digest", TERMS: "terms_digest"}
"""The files that a result is made of too, and its field with the digest of each."""
DIGEST = "digest"
"""The key of result.json that holds a digest of all others: a digit that flipped on the disk is no result."""
PENDING = "result.pending.json"
"""A result that is complete while the notebook that made it is not yet saved; `promote` makes it the result."""


LARGEST = 64 * 2**20
"""Bytes of a file of a run folder that is read as a whole; a larger one is no record."""
LARGEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e150
"""Of a metric or time: what is larger has no square, so no deviation either."""
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]


class Status(StrEnum):
    """How a trial ended."""

    OK = "ok"
    SKIPPED = "skipped"
    DIVERGED = "diverged"
    INVALID_METRIC = "invalid_metric"
    TIMEOUT = "timeout"
    OOM_CPU = "oom_cpu"
    OOM_GPU = "oom_gpu"
    KERNEL_DIED = "kernel_died"
    ERROR = "error"
    INCOMPLETE = "incomplete"
    INFRA_ERROR = "infra_error"
    INTERRUPTED = "interrupted"


FAILED = frozenset(Status) - {Status.OK, Status.SKIPPED}
"""How a trial ended otherwise than it should."""
RERUN = frozenset({Status.INTERRUPTED, Status.INFRA_ERROR})
"""Statuses that say nothing of the model: such a trial is run again."""


@dataclass(frozen=True)
class Gap:
    """Mean excess over the Bayes optimum, paired over the test sequences, with its 95 % t interval; positive is worse."""

    mean: Number
    low: Number
    high: Number
    n: int


@dataclass(frozen=True)
class Result:
    """What ``result.json`` holds. Fields beyond the first block are empty where a trial did not get that far.

    test, validation: metric name → value. score: (metric - floor) / (ceiling or reference - floor).
    length_sweep: tested length → primary metric. model_config: with the width that sizing chose.
    seconds: phase → wall time (data, build, train, validate, test). memory: bytes, see `benchmarks.profiling`.
    ended_by: the field of the fitting configuration that ended the fit; None where the model fits itself. state_bytes: after
    the longest test sequence; None for a model that takes whole sequences. weight_bytes: as stored. environment_steps: played
    to train; None where there is no environment. fit_note: what else is to be said of the fit, as how the steps were taken
    where CUDA graphs were asked for, or that fewer states were fitted than asked for.
    best_before: of a trial that failed, the best row of its curve: its step and the primary metric on validation. It stands for
    nothing, and enters no score.
    timing_valid: false wherever other work may have shared the machine. cost: of a timing trial, which has no metrics.
    still_improving: whether validation improved by more than the metric's margin in the last third of the steps, or a cap ended
    the fit; None where that cannot be said. curve_digest, terms_digest: sha256 of metrics.jsonl and of test_terms.npz.
    """

    trial_id: str
    spec: Mapping[str, Any]
    status: Status
    code_digest: str
    reason: str | None = None
    schema: int = SCHEMA
    # How it is read: "3" is no number, and no number is infinite.
    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)

    primary: str | None = None
    test: Mapping[str, Number] = field(default_factory=dict)
    validation: Mapping[str, Number] = field(default_factory=dict)
    selected_on: str | None = None
    floor: Number | None = None
    ceiling: Number | None = None
    reference: Number | None = None
    score: Number | None = None
    equals_floor: bool = False
    length_sweep: Mapping[str, Number] = field(default_factory=dict)
    optimum_gap: Gap | None = None

    model_config: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    sizing_note: str | None = None
    state_bytes: int | None = None
    weight_bytes: int | None = None
    steps: int | None = None
    best_step: int | None = None
    ended_by: str | None = None
    still_improving: bool | None = None
    environment_steps: int | None = None
    best_before: Mapping[str, Number] = field(default_factory=dict)
    fit_note: str | None = None
    seconds: Mapping[str, Number] = field(default_factory=dict)
    memory: Mapping[str, Number | str] = field(default_factory=dict)
    timing_valid: bool = False
    cost: Cost | None = None
    data_digest: str | None = None
    curve_digest: str | None = None
    terms_digest: str | None = None


@dataclass(frozen=True)
class _Point:
    """What each row of a finished trial's metrics.jsonl holds, see `benchmarks.fitting.Row`."""

    step: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
    seconds: float
    train_loss: float | None
    gradient_norm: float | None
    validation_loss: float
    validation: Annotated[float, Field(allow_inf_nan=False)]
    best: bool
    __pydantic_config__ = ConfigDict(strict=True)


_ADAPTER = TypeAdapter(Result)
_POINT = TypeAdapter(_Point)
_ROW = TypeAdapter(dict[str, bool | Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)] | float | None])


class TornResult(ValueError):
    """A result.json that is cut short, malformed, altered, or disagrees with its folder."""


def run_folder(results: Path, trial_id: str) -> Path:
    return results / "runs" / trial_id


def file_digest(path: Path) -> str | None:
    """sha256 of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def write_atomically(path: Path, text: str) -> None:
    """The whole text or nothing: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_result(folder: Path, result: Result, name: str = RESULT) -> None:
    """Writes result.json, last and atomically, with a digest of its own. Raises ValueError for what JSON cannot hold."""
    content = json.loads(json.dumps(asdict(result), allow_nan=False))
    write_atomically(folder / name, json.dumps({**content, DIGEST: _digest(content)}, indent=1))


def _digest(content: Mapping[str, Any]) -> str:
    """sha256 over what a result says, however its JSON is spaced."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def promote(folder: Path) -> None:
    """Makes a pending result, where there is one, the folder's result."""
    pending = folder / PENDING
    if pending.exists():
        write_atomically(folder / RESULT, pending.read_text())
        pending.unlink()


def read_environment(folder: Path) -> dict[str, Any]:
    """env.json; empty where there is none or it cannot be read."""
    path = folder / "env.json"
    try:
        return parse_json(path.read_bytes()) if path.stat().st_size <= LARGEST else {}
    except (OSError, ValueError):
        return {}


def parse_json(written: bytes) -> dict[str, Any]:
    """The object that a file holds. Raises ValueError for anything else."""
    try:
        content = json.loads(written, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content


def _integer(digits: str) -> int:
    if abs(number := int(digits)) > LARGEST_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    return number


class _Read(NamedTuple):
    """A result as it was read. stamps: of result.json and of what lies beside it, taken before any was read."""

    stamps: tuple[Stamp | None, ...]
    result: Result
    digest: str


_READ: dict[Path, _Read] = {}
"""Run folder → what was read there last. A command asks for the same results many times, and reads each once."""


def read_result(folder: Path) -> Result | None:
    """The folder's result; None where there is none. Raises TornResult if it cannot be trusted."""
    known = _read(folder)
    return known and known.result


def result_digest(folder: Path) -> str | None:
    """sha256 of the folder's result.json, None where there is none."""
    try:
        known = _read(folder)
    except TornResult:
        return file_digest(folder / RESULT)
    return known and known.digest


def _read(folder: Path) -> _Read | None:
    path = folder / RESULT
    stamps = (stamp(path), *(stamp(folder / name) for name in BESIDE))
    known = _READ.get(folder)
    if known is not None and known.stamps == stamps:
        return known
    if folder.exists() and not folder.is_dir():
        raise TornResult(f"{folder}: a file where the run folder should be")
    if stamps[0] is None:
        return None
    if not path.is_file():
        raise TornResult(f"{path}: not a file")
    if stamps[0].size > LARGEST:
        raise TornResult(f"{path}: {stamps[0].size:,} bytes, more than any result")
    content = path.read_bytes()
    result = parse_result(content, path, folder.name, contents_beside(folder))
    _READ[folder] = _Read(stamps, result, hashlib.sha256(content).hexdigest())
    return _READ[folder]


def contents_beside(folder: Path) -> dict[str, bytes | None]:
    """Name → content of each file of `BESIDE`, None where there is none or it is larger than any."""
    paths = {name: folder / name for name in BESIDE}
    fits = {name: path.is_file() and path.stat().st_size <= LARGEST for name, path in paths.items()}
    return {name: path.read_bytes() if fits[name] else None for name, path in paths.items()}


def parse_result(written: bytes, where: Path, trial_id: str, beside: Mapping[str, bytes | None]) -> Result:
    """A result.json. where: for messages. trial_id: of the folder it lies in. beside: the files beside it, as
    `contents_beside` gives them. Raises TornResult if it cannot be trusted, or if no trial could have written it."""
    try:
        content = parse_json(written)
    except ValueError as error:
        raise TornResult(f"{where}: cut short, or no result at all ({error})") from error
    if content.get("schema") != SCHEMA:
        raise TornResult(f"{where}: schema {plain(repr(content.get('schema')), 40)}, expected {SCHEMA}")
    if content.pop(DIGEST, None) != _digest(content):
        raise TornResult(f"{where}: altered after it had been written")
    try:
        result = _ADAPTER.validate_json(written)
    except ValidationError as error:
        raise TornResult(f"{where}: {_first(error)}") from error
    if result.trial_id != trial_id:
        raise TornResult(f"{where}: belongs to trial {plain(result.trial_id, 40)}")
    for name, field_name in BESIDE.items():
        expected = getattr(result, field_name)
        if expected is not None and expected != hashlib.sha256(beside[name] or b"").hexdigest():
            raise TornResult(f"{where}: {name} is not the file this result was made with")
    try:
        _check(result, beside)
    except ValueError as error:
        raise TornResult(f"{where}: {error}") from error
    return result if result.reason is None else replace(result, reason=plain(result.reason))


def _check(result: Result, beside: Mapping[str, bytes | None]) -> None:
    """What types alone do not say. Raises ValueError."""
    for length in result.length_sweep:
        if not (length.isdecimal() and len(length) < 16):
            raise ValueError(f"length_sweep: {plain(length, 40)!r} is no length")
    costs = () if result.cost is None else (result.cost.training_memory, result.cost.inference_memory)
    for memory in (result.memory, *costs):
        for name, value in memory.items():
            if name.endswith("_bytes") and isinstance(value, str):
                raise ValueError(f"memory: {plain(name, 40)} is {plain(value, 40)!r}, not a number")
    if result.cost is not None and "backbone" not in result.parameters:
        raise ValueError("parameters: those of the backbone are missing")
    if "validation" in result.best_before and "step" not in result.best_before:
        raise ValueError("best_before: step is missing")
    if result.curve_digest is not None:
        for number, line in enumerate((beside[CURVE] or b"").splitlines(), 1):
            try:
                _POINT.validate_json(line)
            except ValidationError as error:
                raise ValueError(f"{CURVE}, line {number}: {_first(error)}") from error
    if result.terms_digest is not None:
        try:
            terms.check(beside[TERMS] or b"")
        except ValueError as error:
            raise ValueError(f"{TERMS}: {error}") from error


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(plain(str(part), 40) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, up to the first that cannot be read: a kill can leave a torn last line."""
    path = folder / CURVE
    rows: list[dict[str, Any]] = []
    if not path.is_file() or path.stat().st_size > LARGEST:
        return rows
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = _ROW.validate_json(line)
        except ValidationError:
            break
        if type(row.get("step")) is not int:
            break
        rows.append(row)
    return rows


def failure(
    trial: Trial, status: Status, reason: str, code_digest: str, curve: Sequence[Mapping[str, Any]] = ()
) -> Result:
    """The row of a trial that gave no numbers. reason: bounded, and without control characters, in the row. curve: the rows of
    metrics.jsonl that it had come to."""
    best = [row for row in curve if row.get("best")][-1:]
    reached = {name: best[0][name] for name in ("step", "validation") if best and math.isfinite(best[0][name])}
    return Result(trial.id, asdict(trial), status, code_digest, plain(reason), best_before=reached)
