"""Whether costs of equal models are told apart, and of a model a quarter slower, between processes: ``make perf``.

Twenty studies of five processes, each a new interpreter from which both of two equal models are forked, as a suite does it: the
same GRU under two names. Ten minutes on an idle machine, and worth nothing on a busy one.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

N_STUDIES, N_PROCESSES = 20, 5
MODELS = ("gru", "gru_twin")


def forked(measure: Callable[[], float]) -> float:
    """What ``measure`` gives in a copy of this process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, repr(measure()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        value = float(answer.read())
    os.waitpid(child, 0)
    return value


def one_process() -> None:
    """Prints the training steps of both models in units of fixed work, and in seconds."""
    from dataclasses import replace

    from benchmarks import cost
    from models import registry

    registry.ENTRIES.append(replace(registry.entry("gru"), name="gru_twin"))
    registry.entries.cache_clear()

    def measure(model: str, folder: str) -> float:
        prepared = cost.prepare("parity", model, 0, 2000, "cpu", fit={"batch_size": 32}, run_folder=folder)
        step = prepared._time_training()
        print(json.dumps([model, step.compared, step.median_s]), flush=True)
        return step.compared

    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            forked(lambda model=model: measure(model, folder))


def main() -> None:
    import numpy as np

    from benchmarks.statistics import paired_t_interval

    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    rows = {model: np.empty((N_STUDIES, N_PROCESSES, 2)) for model in MODELS}
    for study, process in np.ndindex(N_STUDIES, N_PROCESSES):
        command = [sys.executable, str(Path(__file__)), "--process"]
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        for model, *values in map(json.loads, printed.splitlines()):
            rows[model][study, process] = np.log(values)
    for unit, what in enumerate(("fixed work", "seconds")):
        a, b = (rows[model][..., unit] for model in MODELS)
        spread = np.sqrt(np.mean([np.var(x, axis=1, ddof=1) for x in (a, b)]))
        apart = {
            planted: sum(not low <= 0 <= high for _, low, high in map(paired_t_interval, a + math.log(planted), b))
            for planted in (1.0, 1.25)
        }
        print(
            f"{N_STUDIES} studies of {N_PROCESSES} processes in {what}: equal models told apart in {apart[1.0]}, a quarter "
            f"more in {apart[1.25]}; between processes the logarithm of a step spreads by {spread:.3f}"
        )


if __name__ == "__main__":
    one_process() if "--process" in sys.argv else main()
