"""Whether costs of equal models are told apart, and of a model a quarter slower, between processes: ``make perf``.

Twenty studies of five processes of each of two equal models, the same GRU under two names; each a new interpreter, as in a
suite. A quarter of an hour on an idle machine, and worth nothing on a busy one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

N_STUDIES, N_PROCESSES = 20, 5
MODELS = ("gru", "gru_twin")


def one_process(model: str) -> None:
    """Does its imports, waits for a line, and prints the training step in units of fixed work, and in seconds."""
    from dataclasses import replace

    from benchmarks import cost
    from models import registry

    registry.ENTRIES.append(replace(registry.entry("gru"), name="gru_twin"))
    registry.entries.cache_clear()
    registry.entry(model).do_imports()
    print("ready", flush=True)
    sys.stdin.readline()
    with tempfile.TemporaryDirectory() as folder:
        prepared = cost.prepare("parity", model, 0, 2000, "cpu", fit={"batch_size": 32}, run_folder=folder)
        step = prepared._time_training()
    print(json.dumps([step.compared, step.median_s]), flush=True)


def measured(models: Sequence[str]) -> list[list[float]]:
    """What a new process of each model prints: all start together, and measure in turn, as in a suite."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__)), model],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for model in models
    ]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    values = []
    for process in started:
        printed, _ = process.communicate("begin\n")
        values.append(json.loads(printed))
    return values


def main() -> None:
    import numpy as np

    from benchmarks.statistics import paired_t_interval

    rows = {model: np.empty((N_STUDIES, N_PROCESSES, 2)) for model in MODELS}
    for study, process in np.ndindex(N_STUDIES, N_PROCESSES):
        for model, values in zip(MODELS, measured(MODELS), strict=True):
            rows[model][study, process] = np.log(values)
    for unit, what in enumerate(("fixed work", "seconds")):
        a, b = (rows[model][..., unit] for model in MODELS)
        spread = np.sqrt(np.mean([np.var(x, axis=1, ddof=1) for x in (a, b)]))
        apart = {
            planted: sum(not low <= 0 <= high for _, low, high in map(paired_t_interval, a + math.log(planted), b))
            for planted in (1.0, 1.25)
        }
        bias, low, high = paired_t_interval(b.ravel(), a.ravel())
        print(
            f"{N_STUDIES} studies of {N_PROCESSES} processes in {what}: equal models told apart in {apart[1.0]}, a quarter "
            f"more in {apart[1.25]}; between processes the logarithm of a step spreads by {spread:.3f}, "
            f"and the model that measures second takes {bias:+.3f} ({low:+.3f} to {high:+.3f}) of it more"
        )


if __name__ == "__main__":
    one_process(sys.argv[1]) if len(sys.argv) > 1 else main()
