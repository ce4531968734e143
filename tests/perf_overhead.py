"""What a trial costs beyond its fit and evaluation, beside plain papermill with the same notebook in one run: ``make perf``.

50 trivial trials, a constant fitted to a small task. Overhead is the whole wall time, the fork server's imports and MLflow
left out of neither, minus data, build, fit and evaluation as the records have them, per trial.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_TRIALS, N_PLAIN = 50, 3
LIMIT_S = 0.7

PLAIN = """
import sys, json, papermill
notebook, output, parameters = sys.argv[1:]
papermill.execute_notebook(
    notebook, output, json.loads(parameters), kernel_name="python3", progress_bar=False, cwd=notebook.rpartition("/")[0]
)
"""


def main() -> int:
    from benchmarks import provenance
    from benchmarks.execution import fork_server, supervisor
    from benchmarks.records import read_result, run_folder
    from benchmarks.trial import Overrides, specify

    def own_seconds(folder: Path) -> float:
        result = read_result(folder)
        assert result is not None and result.status == "ok", result
        return sum(result.seconds.values())

    small = Overrides({"length": 10, "n_train": 64, "n_validation": 64, "n_test": 64})
    trials = [specify("adding", "floor", seed, None, "cpu", small) for seed in range(N_TRIALS)]
    digests = {trial.id: provenance.code_digest(trial.task, trial.model) for trial in trials}
    with tempfile.TemporaryDirectory() as scratch:
        overhead = {}
        for workers in (1, supervisor.cores()):
            results = Path(scratch) / f"{workers}"
            started = time.perf_counter()
            supervisor.run(trials, digests, results, workers)
            wall = time.perf_counter() - started
            own = sum(own_seconds(run_folder(results, trial.id)) for trial in trials)
            overhead[workers] = (wall - own / workers) / N_TRIALS
        plain = []
        for trial in trials[:N_PLAIN]:
            folder = Path(scratch) / "plain" / trial.id
            folder.mkdir(parents=True)
            parameters = {"task": "adding", "task_parameters": dict(trial.task_parameters), "model": "floor"}
            parameters |= {
                "parameter_budget": None,
                "seed": trial.seed,
                "fit": dict(trial.fit),
                "run_folder": str(folder),
            }
            command = [sys.executable, "-c", PLAIN, str(provenance.notebook("quality")), str(folder / "notebook.ipynb")]
            started = time.perf_counter()
            subprocess.run([*command, json.dumps(parameters)], check=True, env=os.environ | fork_server.ONE_THREAD)
            pending = json.loads((folder / "result.pending.json").read_text())
            plain.append(time.perf_counter() - started - sum(pending["seconds"].values()))
    for workers, seconds in overhead.items():
        print(f"{N_TRIALS} trials, {workers} at a time: {seconds:.2f} s of overhead per trial (at most {LIMIT_S})")
    print(f"plain papermill, one at a time: {sum(plain) / len(plain):.2f} s")
    return int(min(overhead.values()) > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
