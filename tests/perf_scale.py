"""What a suite of 5,000 trials costs beside its trials, and the limits: ``python tests/perf_scale.py``, on an idle machine.

Run folders with invented numbers lie in a temporary folder, in two shapes; the real commands then work on them. The trials of
the first shape are run by the real coordinator, with workers that end at once. What MLflow's store holds is taken as known:
to fill it takes minutes. The page is opened where there is a Chromium. Exits 1 where a number is beyond its limit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from instant_workers import InstantContext, InstantWorker
from synthetic_runs import MODELS, write_failure, write_run

from benchmarks import records, tracking
from benchmarks.execution import display, fork_server
from benchmarks.execution.plan import refusal
from benchmarks.records import Result, Status
from benchmarks.running import Options, complete
from benchmarks.suite import load
from benchmarks.tracking import Ledger
from benchmarks.trial import Trial

ROOT = Path(__file__).resolve().parents[1]
FEW_TASKS = ("japanese_vowels", "adding", "recall", "parity", "hidden_source", "co2", "casino", "copy_memory")
MANY_TASKS = (
    *(
        *FEW_TASKS,
        "basic_motions",
        "gun_point",
        "italy_power",
        "digits",
        "moving_digits_direction",
        "sunspots",
        "elnino",
    ),
    *("macro", "selective_copy", "associative_recall", "even_pairs", "cycle_navigation", "modular_arithmetic"),
    *("bracket_depth", "reverse_string", "duplicate_string", "number_words"),
)
MANY_MODELS = (
    *(*MODELS, "rnn_relu", "bigru", "deep_gru", "mingru", "minlstm", "lru", "cnn_gru", "gru_attention", "gru_memory"),
    "hopfield",
)
SHAPES = {
    "tall": (MODELS, FEW_TASKS, 63),
    "wide": (MANY_MODELS, MANY_TASKS, 10),
}
"""Suite → models, tasks, seeds: few cells of many seeds, and many of few."""

WATCH = """
import atexit, os, sys
to = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def heard(event, arguments):
    if event == "open" and str(arguments[0]).endswith("/result.json") and arguments[1] in ("r", "rb"):
        os.write(to, f"read {arguments[0]}\\n".encode())
sys.addaudithook(heard)
def end():
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    os.write(to, f"end {os.getpid()} {peak} {'torch' in sys.modules}\\n".encode())
atexit.register(end)
"""
"""A sitecustomize.py: every process of a command writes which results it opens, and at its end its peak memory."""


class Measured(NamedTuple):
    """A command that ended. reads: the most often that one result.json was opened, over all processes. peak_mb, torch: of the
    command's own process."""

    seconds: float
    reads: int
    peak_mb: float
    torch: bool
    output: str


def measure(shape: str, scratch: Path) -> Iterator[tuple[str, float, float | None, str]]:
    """What was measured, its limit, its unit."""
    models, tasks, n_seeds = SHAPES[shape]
    suite, results = scratch / f"{shape}.yaml", scratch / shape
    results.mkdir()
    suite.write_text(
        f"# Command: none\n# Time: none\n# Expected: invented numbers\nname: {shape}\ndescription: Invented.\n"
        f"parameter_budget: 20000\nseeds: {n_seeds}\ngrids:\n  - {{models: {_yaml(models)}, tasks: {_yaml(tasks)}}}\n"
    )
    planned = load(str(suite)).trials(device="cpu")
    named = f"{shape}, {len(models)} models x {len(tasks)} tasks x {n_seeds} seeds: "
    if shape == "tall":
        yield from coordinated(suite, results, named)
    else:
        for trial in planned:
            reason = refusal(trial)
            if reason is None:
                write_run(results, trial, n_validations=20)
            else:
                write_failure(results, trial, Status.SKIPPED, reason)
    fill_ledger(results, shape, [trial.id for trial in planned])

    report = command(scratch, "report", str(suite), "--results", str(results), "--device", "cpu")
    page = results / shape / "report.html"
    yield named + "report", report.seconds, 60, "s"
    yield "  its reads of one result.json, over its two processes", report.reads, 2, ""
    yield "  its page", page.stat().st_size / 1e6, None, "MB"
    yield "  pictures on it", page.read_text().count("<img "), None, ""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        yield "  opening it", opened_s(browser, page, scratch), 2, "s"
    else:
        print("no Chromium here: how long the page takes to open is not measured")
    run = ("run", str(suite), "--results", str(results), "--device", "cpu")
    looked, recalled = command(scratch, *run), command(scratch, *run)
    assert looked.output == recalled.output, "the second run says something else"
    yield named + "nothing to run, looking at all", looked.seconds, None, "s"
    yield "  its reads of one result.json", looked.reads, 1, ""
    yield "  its peak memory", looked.peak_mb, 500, "MB"
    yield named + "nothing to run, nothing changed", recalled.seconds, 5, "s"
    yield "  it imports torch (1) or not (0)", recalled.torch, 0, ""


def coordinated(suite: Path, results: Path, named: str) -> Iterator[tuple[str, float, float | None, str]]:
    """All trials run by the coordinator, with instant workers."""
    told = subprocess.run(
        [sys.executable, __file__, "coordinate", str(suite), str(results)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    own = found["own_s"]  # the main thread's own time at the end of each trial
    first, last = own[1000] - own[0], own[-1] - own[-1001]
    yield named + "coordinator's peak memory", found["peak_mb"], 500, "MB"
    yield "  its own time per trial, of the first thousand", first, None, "ms"
    yield "  its own time per trial, of the last thousand", last, None, "ms"
    yield "  the same, in those of the first", last / first, 1.1, ""


def coordinate(suite: str, results: str) -> int:
    """`rnnbench run` in this process with instant workers; prints what it took as one line of JSON."""
    fork_server.context = lambda forked: InstantContext()  # type: ignore[assignment, return-value]
    tracking.DRAIN_SECONDS = 1.0
    advance, own = display.Progress.advance, []

    def noted(self: display.Progress, trial: Trial, result: Result) -> None:
        advance(self, trial, result)
        if result.status is Status.OK:
            own.append(time.thread_time() - InstantWorker.seconds_inside)

    display.Progress.advance = noted  # type: ignore[method-assign]
    complete(suite, "cpu", Options(Path(results), 2))
    print(json.dumps({"own_s": own, "peak_mb": peak_mb()}))
    return 0


def fill_ledger(results: Path, suite: str, trials: list[str]) -> None:
    """MLflow's store and its ledger as they are once all is logged, but for what is in the store."""
    (results / "mlflow.db").touch()
    ledger = Ledger(results, suite)
    digests = {trial: records.result_digest(records.run_folder(results, trial)) for trial in trials}
    ledger.logged = {trial: digest for trial, digest in digests.items() if digest}
    ledger.save()


def command(scratch: Path, *arguments: str) -> Measured:
    """`rnnbench` with these arguments."""
    watch, seen = scratch / "watch", scratch / "seen"
    watch.mkdir(exist_ok=True)
    (watch / "sitecustomize.py").write_text(WATCH)
    seen.write_text("")
    environment = os.environ | {"PYTHONPATH": str(watch), "WATCHED": str(seen), "COLUMNS": "120"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    output, errors = process.communicate()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"rnnbench {' '.join(arguments)} ended with {process.returncode}:\n{output}{errors}")
    lines = [line.split() for line in seen.read_text().splitlines()]
    reads = Counter(line[1] for line in lines if line[0] == "read")
    ((peak, torch),) = [line[2:] for line in lines if line[:2] == ["end", str(process.pid)]]
    return Measured(seconds, max(reads.values(), default=0), int(peak) / 1e3, torch == "True", output)


def opened_s(browser: str, page: Path, scratch: Path) -> float:
    """Seconds from the start of loading until all is laid out, by the browser's own clock; the browser's start is not in it."""
    timed = scratch / "timed.html"
    script = (
        "addEventListener('load', () => {document.body.offsetHeight; document.title = 'took ' + performance.now()})"
    )
    timed.write_text(page.read_text() + f"<script>{script}</script>")
    call = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", timed.as_uri()]
    shown = subprocess.run(call, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r"<title>took ([\d.]+)</title>", shown)
    if found is None:
        raise SystemExit("the browser did not say when the page was there")
    return float(found[1]) / 1e3


def peak_mb() -> float:
    """Of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def _yaml(names: tuple[str, ...]) -> str:
    return f"[{', '.join(names)}]"


def main() -> int:
    os.fsync = lambda fd: None  # type: ignore[assignment]  # invented results may be lost, and thousands take minutes
    if sys.argv[1:2] == ["coordinate"]:
        return coordinate(*sys.argv[2:])
    rows: list[tuple[str, float, float | None, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for shape in SHAPES:
            rows += measure(shape, Path(scratch))
    return show(rows)


def show(rows: list[tuple[str, float, float | None, str]]) -> int:
    """Prints what was measured beside its limit; 1 where one is passed."""
    beyond = 0
    for what, value, limit, unit in rows:
        told = "" if limit is None else f"  limit {limit:g}" + ("" if value <= limit else "  BEYOND")
        print(f"{what:<62} {value:>9,.2f} {unit}{told}")
        beyond += limit is not None and value > limit
    return int(beyond > 0)


if __name__ == "__main__":
    sys.exit(main())
