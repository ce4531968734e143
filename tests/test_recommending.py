"""What is recommended follows from the numbers: the best, who is not told from it, or nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_files import table

from benchmarks import tables
from benchmarks.report_sections import Study
from benchmarks.suite import load
from benchmarks.your_data.comparing import Asked, look
from benchmarks.your_data.reading import Roles
from benchmarks.your_data.recommending import recommendation


@pytest.fixture
def study(tmp_path: Path):
    """Makes a study of accuracies: model → one per seed."""
    path, suite = tmp_path / "a.csv", tmp_path / "suite.yaml"
    table().to_csv(path, index=False)
    suite.write_text(look(path, Asked(Roles("y", "id"), models=("gru", "lstm", "rnn", "floor"))).content)

    def made(values: dict[str, tuple[float, ...]]) -> Study:
        trials = [trial for trial in load(str(suite)).trials(device="cpu") if trial.model in values]
        frame = tables.frame(tmp_path, trials)
        for row, trial in enumerate(trials):
            if trial.seed < len(values[trial.model]):
                frame.loc[row, ["status", "value", "floor", "seconds_train", "parameters"]] = [
                    *("ok", values[trial.model][trial.seed], 0.5),
                    *(10.0, 100),
                ]
        frame = frame.astype({"value": float, "floor": float, "stale": bool})
        return Study("a", "", "", 11_500, tmp_path, trials, frame, tables.matrix(frame))

    return made


FLOOR = {"floor": (0.5, 0.5, 0.5)}


def test_the_best_is_recommended_with_those_that_are_not_told_from_it(study) -> None:
    lines = recommendation(
        study({"gru": (0.9, 0.91, 0.92), "lstm": (0.92, 0.88, 0.9), "rnn": (0.7, 0.71, 0.72), **FLOOR})
    )
    assert (
        lines[0].startswith("Recommendation: gru. accuracy 0.91")
        and "always giving the same answer has 0.5" in lines[0]
    )
    assert "do not tell it from lstm" in lines[1] and "than rnn by 0.2" in lines[1]
    assert "11,500 parameters" in lines[2] and "The test split holds 2 sequences" in lines[3]


def test_nobody_is_recommended_who_is_not_better_than_a_constant(study) -> None:
    lines = recommendation(study({"gru": (0.45, 0.5, 0.58), "lstm": (0.3, 0.2, 0.25), **FLOOR}))
    assert lines[0].startswith("Recommendation: none of these models. The best of them, gru")


def test_a_model_with_a_missing_seed_is_not_considered(study) -> None:
    lines = recommendation(study({"gru": (0.99, 0.99), "lstm": (0.8, 0.81, 0.82), **FLOOR}))
    assert lines[0].startswith("Recommendation: lstm") and "Not every seed of gru finished" in lines[-1]
    assert recommendation(study({"gru": (0.99,), **FLOOR}))[0].startswith("Recommendation: none. No model has finished")
