"""What is recommended follows from the numbers: the best model, those that are undecided, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_files import table
from synthetic_runs import trials, write_run
from test_report import study_of

from benchmarks import tables
from benchmarks.metrics import Parts, accuracy
from benchmarks.report_sections import Study
from benchmarks.sequence_metrics import average_precision
from benchmarks.suite import load
from benchmarks.terms import Terms
from benchmarks.your_data.comparing import Asked, look
from benchmarks.your_data.reading import Roles
from benchmarks.your_data.recommending import best_on_validation, recommendation


@pytest.fixture
def study(tmp_path: Path):
    """Makes a study of accuracies: model → one per seed."""
    path, suite = tmp_path / "a.csv", tmp_path / "suite.yaml"
    table().to_csv(path, index=False)
    suite.write_text(look(path, Asked(Roles("y", "id"), models=("gru", "lstm", "rnn", "floor"))).content)

    def made(values: dict[str, tuple[float, ...]], validation: dict[str, float] | None = None) -> Study:
        trials = [trial for trial in load(str(suite)).trials(device="cpu") if trial.model in values]
        frame = tables.frame(tmp_path, trials)
        for row, trial in enumerate(trials):
            if trial.seed < len(values[trial.model]):
                value = values[trial.model][trial.seed]
                shown = (validation or {}).get(trial.model, value)
                frame.loc[row, ["status", "value", "validation", "floor", "seconds_train", "parameters"]] = [
                    *("ok", value, shown, 0.5),
                    *(10.0, 100),
                ]
        frame = frame.astype({"value": float, "validation": float, "floor": float, "stale": bool})
        return Study("a", "", "", 11_500, tmp_path, trials, frame, tables.matrix(frame))

    return made


FLOOR = {"floor": (0.5, 0.5, 0.5)}


def test_the_best_is_recommended_with_those_that_are_not_told_from_it(study) -> None:
    lines = recommendation(
        study({"gru": (0.9, 0.91, 0.92), "lstm": (0.92, 0.88, 0.9), "rnn": (0.7, 0.71, 0.73), **FLOOR})
    )
    assert (
        lines[0].startswith("Recommendation: gru, the best on validation. accuracy 0.91")
        and "always giving the same answer has 0.5" in lines[0]
    )
    assert "not decided whether it is better than lstm" in lines[1] and "than rnn by 0.197" in lines[1]
    assert "11,500 parameters" in lines[2] and "The test split holds 2 sequences" in lines[3]


def test_nobody_is_recommended_who_is_not_better_than_a_constant(study) -> None:
    lines = recommendation(study({"gru": (0.45, 0.5, 0.58), "lstm": (0.3, 0.2, 0.25), **FLOOR}))
    assert lines[0].startswith("Recommendation: none of these models. The best of them on validation, gru")


def test_a_model_with_a_missing_seed_is_not_considered(study) -> None:
    lines = recommendation(study({"gru": (0.99, 0.99), "lstm": (0.8, 0.81, 0.82), **FLOOR}))
    assert lines[0].startswith("Recommendation: lstm") and "Not every seed of gru finished" in lines[-1]
    assert recommendation(study({"gru": (0.99,), **FLOOR}))[0].startswith("Recommendation: none. No model has finished")


def told(results: Path, skills: dict[str, tuple[float, float, float]], **changes: object) -> list[str]:
    planned = trials(tuple(skills), ("recall",), 3)
    for trial in planned:
        write_run(results, trial, skills[trial.model][trial.seed], **changes)
    return recommendation(study_of(results, planned))


def level(skill: float) -> tuple[float, float, float]:
    return skill, skill, skill


def test_the_first_sentence_names_the_best_simple_rival_even_where_it_loses(tmp_path: Path) -> None:
    skills = {
        "gru": level(0.9),
        "lstm": level(0.5),
        "hmm": level(0.2),
        "boosted_trees": level(0.6),
        "floor": level(0.0),
    }
    first, sure, *_ = told(tmp_path, skills)
    assert first.startswith("Recommendation: gru, the best on validation. ")
    assert "the best simple model, boosted_trees, has 0.435" in first
    assert (
        "it is better than lstm, hmm, boosted_trees, significantly and by more than the margin (than boosted_trees"
        in sure
    )


def test_where_a_simple_model_leads_the_best_network_is_named(tmp_path: Path) -> None:
    first, *_ = told(tmp_path, {"gru": level(0.5), "boosted_trees": level(0.9), "floor": level(0.0)})
    assert (
        first.startswith("Recommendation: boosted_trees, the best on") and "the best network, gru, has 0.354" in first
    )


def test_undecided_models_are_no_losers_and_cheaper_is_said_only_of_equals(tmp_path: Path) -> None:
    skills = {"gru": level(0.9), "lstm": (0.7, 0.95, 0.85), "hmm": level(0.899), "floor": level(0.0)}
    first, sure, *_ = told(tmp_path, skills)
    assert "Recommendation: gru" in first and "hmm is practically equal to it" in sure
    assert "it is not decided whether it is better than lstm" in sure


def test_fits_that_were_still_improving_are_flagged_wherever_they_are_named(tmp_path: Path) -> None:
    skills = {"gru": level(0.9), "lstm": level(0.5), "floor": level(0.0)}
    first, sure, *_ = told(tmp_path, skills, still_improving=True)
    assert first.startswith("Recommendation: gru ↗, the best on validation. ") and "lstm ↗" in sure
    assert "↗: fits that were still improving when their time was spent." in sure


def test_nothing_is_recommended_that_does_not_significantly_beat_a_constant(tmp_path: Path) -> None:
    first, *_ = told(tmp_path, {"gru": (0.0, 0.1, -0.05), "floor": level(0.0)})
    assert first.startswith("Recommendation: none of these models.")
    assert "it does not significantly beat a constant prediction" in first


def test_the_winner_is_chosen_on_validation_and_reported_on_test(study) -> None:
    values = {"gru": (0.80, 0.81, 0.82), "lstm": (0.9, 0.91, 0.92), **FLOOR}
    first, sure, *_ = recommendation(study(values, {"gru": 0.88, "lstm": 0.85}))
    assert first.startswith("Recommendation: gru, the best on validation. accuracy 0.81")
    assert "lstm is significantly better than it, though not on validation" in sure
    first, *_ = recommendation(study({**values, "gru": (0.5, 0.49, 0.51)}, {"gru": 0.88, "lstm": 0.85}))
    assert first.startswith(
        "Recommendation: none of these models. The best of them on validation, gru, has accuracy 0.5"
    )


def test_less_time_and_fewer_parameters_are_said_of_equals_alone(tmp_path: Path) -> None:
    skills = {"gru": level(0.9), "hmm": (0.2, 0.21, 0.19), "lstm": level(0.9), "floor": level(0.0)}
    _, sure, *_ = told(tmp_path, skills)
    for sentence in sure.split("; "):
        if "least time" in sentence or "fewest parameters" in sentence:
            assert "hmm" not in sentence


def test_accuracy_stands_beside_cross_entropy(study) -> None:
    made = study({"gru": (0.9, 0.91, 0.92), **FLOOR})
    made.frame["accuracy"] = 0.75
    made.matrix["metric"] = "cross_entropy"
    assert ", accuracy 0.750 on the test split" in recommendation(made)[0].replace(
        "(fraction correct, mean of 3 seeds)", ""
    )


N_TEST, N_VALIDATION = 1_000, 800
"""Of 5,000 sequences."""


def noise_frame(plain: pd.DataFrame, rng: np.random.Generator, is_rare: bool) -> pd.DataFrame:
    """The results of models that answer at random. Seeds of a model are alike, as of models that are fitted to like data."""
    frame = plain.copy()
    tested, chosen = (rng.random(n) < (0.07 if is_rare else 0.5) for n in (N_TEST, N_VALIDATION))
    metric = average_precision(1, "b") if is_rare else accuracy
    kept: dict[object, Terms] = {}
    for model in dict.fromkeys(frame["model"]):
        own = rng.normal(size=N_TEST + N_VALIDATION)
        for row in frame.index[frame["model"] == model]:
            scores = np.zeros(len(own)) if model == "floor" else 0.9 * own + 0.44 * rng.normal(size=len(own))
            values = []
            for part, truth in ((scores[:N_TEST], tested), (scores[N_TEST:], chosen)):
                over = part if is_rare else ((part > 0) == truth).astype(float)
                under = truth.astype(float) if is_rare else np.ones(len(truth))
                values.append(Terms(over, under, statistic=metric.statistic))
            value, validation = (float(metric.value(Parts(*map(torch.tensor, (t.over, t.under))))) for t in values)
            frame.loc[
                row, ["status", "metric", "margin", "value", "validation", "floor", "seconds_train", "parameters"]
            ] = [
                *("ok", metric.name, metric.margin, value, validation),
                *(float(tested.mean()) if is_rare else 0.5, 10.0, 100),
            ]
            kept[row] = values[0]
    frame["terms"] = pd.Series(kept)
    return frame.astype({"value": float, "validation": float, "floor": float, "stale": bool})


def test_on_twenty_files_of_noise_at_most_one_model_is_recommended_and_what_is_quoted_is_chance(study) -> None:
    names = ("gru", "lstm", "rnn", "floor")
    plain = study(dict.fromkeys(names, (0.5, 0.5, 0.5)))
    rivals = [
        plain.frame[plain.frame["model"] != "floor"].assign(model=lambda f, k=k: f["model"] + str(k)) for k in range(4)
    ]
    frame = pd.concat([*rivals, plain.frame[plain.frame["model"] == "floor"]], ignore_index=True)
    rng, n_recommended, excess = np.random.default_rng(0), 0, []
    for number in range(20):
        made = noise_frame(frame, rng, is_rare=number % 4 == 0)
        cells = tables.matrix(made)
        lines = recommendation(replace(plain, frame=made, matrix=cells))
        n_recommended += not lines[0].startswith("Recommendation: none")
        rows = [row for row in cells.to_dict("records") if row["family"] != "floor"]
        best = best_on_validation(rows)
        excess.append(best["mean"] - best["floor"])
    assert n_recommended <= 1
    assert abs(float(np.mean(excess))) <= 0.01
