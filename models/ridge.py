"""Ridge regression with its penalty by leave-one-out, and how sure its decision values are of a class.

Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634, as in scikit-learn's RidgeCV. Decision values are no log-odds.
As in Platt 1999, a scale for them comes from values that the fit did not see, here those of leaving out each of the N training
sequences in turn, for which ridge regression has a formula; and the goals q stop one sequence of unknown class short of
certainty, lest classes that training separates be given infinite odds:

    p(k | x) ∝ exp(a f_k(x))        a = argmax Σ_x Σ_k q_k(x) log p(k | f without x)        q_k = (N [k = y] + 1 / K) / (N + 1)
"""

from __future__ import annotations

import numpy as np


def ridge(features: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, P), goals (N, K) → coefficients (P, K), intercepts (K,), and what each row's goals would have been
    predicted to be without the row, (N, K). Features are standardised; the strength is the best one under leave-one-out."""
    from sklearn.linear_model import RidgeCV

    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    strengths = np.logspace(-3, 3, 10)  # as the authors have it
    model = RidgeCV(strengths, scoring="neg_mean_squared_error", store_cv_results=True)
    model.fit((features - mean) / deviation, goals)
    coefficients = model.coef_.reshape(goals.shape[1], -1).T / deviation[:, None]
    intercepts = np.reshape(model.intercept_, -1) - mean @ coefficients
    held_out = model.cv_results_[..., int(np.argmin(np.abs(strengths - model.alpha_)))]
    return coefficients, intercepts, held_out.reshape(goals.shape)


def confidence(decisions: np.ndarray, labels: np.ndarray) -> float:
    """The scale at which decision values (N, K), as logits, fit labels (N,) best; between 0.1 and 100."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    n, n_classes = decisions.shape
    goals = (n * np.eye(n_classes)[labels] + 1 / n_classes) / (n + 1)  # (N, K)

    def surprise(log_scale: float) -> float:
        return -float((goals * log_softmax(np.exp(log_scale) * decisions, axis=1)).sum(1).mean())

    best = minimize_scalar(surprise, bounds=(np.log(0.1), np.log(100.0)), method="bounded")
    return float(np.exp(best.x))


def log_odds(decisions: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, (K,) each, at which decision values (N, K) are the log-odds of yes, 1, and not no, 0, in answers (N, K).

    Platt 1999, with his goals for the yes and no of few examples.
    """
    from scipy.optimize import minimize

    def fitted(values: np.ndarray, is_yes: np.ndarray) -> np.ndarray:
        n_yes, n_no = is_yes.sum(), (1 - is_yes).sum()
        goals = np.where(is_yes > 0, (n_yes + 1) / (n_yes + 2), 1 / (n_no + 2))

        def surprise(line: np.ndarray) -> tuple[float, np.ndarray]:
            logits = line[0] * values + line[1]
            errors = 1 / (1 + np.exp(-logits)) - goals
            gradient = np.array([(errors * values).mean(), errors.mean()])
            return float((np.logaddexp(0, logits) - goals * logits).mean()), gradient

        start = np.array([1.0, np.log((n_yes + 1) / (n_no + 1))])
        return np.asarray(minimize(surprise, start, jac=True, bounds=[(0, 100), (-100, 100)]).x)

    lines = np.stack([fitted(values, is_yes) for values, is_yes in zip(decisions.T, answers.T, strict=True)])
    return lines[:, 0], lines[:, 1]
