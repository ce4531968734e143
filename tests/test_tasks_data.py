"""What single tasks stand on: the exact filter, the bundled files, scaling, windows and the computed references."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.parameters import InvalidParameter
from benchmarks.tasks import bundled
from benchmarks.tasks.classification import Labelled, Parts, archive_parts, classification_splits, warping_distances
from benchmarks.tasks.forecasting import origins, window_splits
from benchmarks.tasks.markov import CASINO, HIDDEN_SOURCE, HiddenMarkovModel, draw, filtered
from benchmarks.tasks.registry import task

SOURCES = {"hidden_source": HIDDEN_SOURCE, "casino": CASINO}
both_sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


def enumerated_filter(model: HiddenMarkovModel, symbols: list[int]) -> np.ndarray:
    """(T, S): P(state_t | x_1 … x_t) by summing over every path of states."""
    n_states = len(model.start)
    rows = np.zeros((len(symbols), n_states))
    for t in range(len(symbols)):
        for path in itertools.product(range(n_states), repeat=t + 1):
            probability = model.start[path[0]]
            for before, after in itertools.pairwise(path):
                probability *= model.transitions[before, after]
            for state, symbol in zip(path, symbols, strict=False):
                probability *= model.emissions[state, symbol]
            rows[t, path[-1]] += probability
    return rows / rows.sum(1, keepdims=True)


def random_model(seed: int, n_states: int, n_symbols: int) -> HiddenMarkovModel:
    generator = np.random.default_rng(seed)
    return HiddenMarkovModel(
        generator.dirichlet(np.ones(n_states)),
        generator.dirichlet(np.ones(n_states), n_states),
        generator.dirichlet(np.ones(n_symbols), n_states),
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), n_states=st.integers(1, 3), symbols=st.lists(st.integers(0, 2), min_size=1, max_size=5)
)
def test_the_filter_equals_the_sum_over_every_path(seed: int, n_states: int, symbols: list[int]) -> None:
    model = random_model(seed, n_states, 3)
    np.testing.assert_allclose(
        filtered(model, torch.tensor([symbols]))[0], enumerated_filter(model, symbols), atol=1e-12
    )


@both_sources
def test_the_filter_equals_that_of_hmmlearn(source: HiddenMarkovModel) -> None:
    symbols = draw(source, 3, 40, np.random.default_rng(0))[1]
    theirs = CategoricalHMM(len(source.start), n_features=source.emissions.shape[1])
    theirs.startprob_, theirs.transmat_, theirs.emissionprob_ = source
    ours = filtered(source, torch.from_numpy(symbols)).numpy()
    for row, posterior in zip(symbols, ours, strict=True):
        for t in (1, 2, 17, 40):  # the smoothed posterior at the end of a prefix is the filtered one
            np.testing.assert_allclose(posterior[t - 1], theirs.predict_proba(row[:t, None])[-1], atol=1e-9)


@both_sources
def test_predictive_probabilities_multiply_to_the_likelihood_of_hmmlearn(source: HiddenMarkovModel) -> None:
    symbols = draw(source, 4, 30, np.random.default_rng(1))[1]
    theirs = CategoricalHMM(len(source.start), n_features=source.emissions.shape[1])
    theirs.startprob_, theirs.transmat_, theirs.emissionprob_ = source
    ahead = filtered(source, torch.from_numpy(symbols)).numpy() @ source.transitions @ source.emissions
    for row, predictive in zip(symbols, ahead, strict=True):
        likelihood = np.log((source.start @ source.emissions)[row[0]])
        likelihood += np.log(predictive[np.arange(29), row[1:]]).sum()
        assert likelihood == pytest.approx(theirs.score(row[:, None]))


@both_sources
def test_a_source_is_stationary_and_its_rows_are_probabilities(source: HiddenMarkovModel) -> None:
    np.testing.assert_allclose(source.start @ source.transitions, source.start, atol=1e-12)
    for table in source:
        np.testing.assert_allclose(table.sum(-1), 1.0, atol=1e-12)


@both_sources
def test_draws_follow_the_source(source: HiddenMarkovModel) -> None:
    states, symbols = draw(source, 2_000, 50, np.random.default_rng(2))
    n_states, n_symbols = source.emissions.shape
    moves, shown = np.zeros((n_states, n_states)), np.zeros((n_states, n_symbols))
    np.add.at(moves, (states[:, :-1], states[:, 1:]), 1)
    np.add.at(shown, (states, symbols), 1)
    # Rows rest on more than 15,000 draws: a standard error of at most 0.004.
    np.testing.assert_allclose(moves / moves.sum(1, keepdims=True), source.transitions, atol=0.02)
    np.testing.assert_allclose(shown / shown.sum(1, keepdims=True), source.emissions, atol=0.02)
    np.testing.assert_allclose(np.bincount(states[:, 0]) / 2_000, source.start, atol=0.05)


def test_forgetful_predictors_are_clearly_worse_than_the_optimum_of_hidden_source() -> None:
    built = task("hidden_source", {})
    splits = built.splits(0)
    counts = np.full((4, 4), 0.5)
    np.add.at(counts, (splits.train.inputs.numpy(), splits.train.targets.numpy()), 1)
    table = torch.from_numpy(np.log(counts / counts.sum(1, keepdims=True)))
    after_one_symbol = built.metrics[0](
        table[splits.test.inputs][splits.test.scored], splits.test.targets[splits.test.scored]
    )
    optimum = built.ceiling()
    assert optimum is not None and built.floor(0) > 1.3 * optimum and after_one_symbol > 1.15 * optimum


def test_bundled_files_read_as_their_packages_read_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages' imports, which are not ours to mend
        from aeon.datasets import load_basic_motions, load_japanese_vowels
        from sklearn.datasets import load_digits
        from statsmodels.datasets import co2, sunspots
    for problem, load in (("JapaneseVowels", load_japanese_vowels), ("BasicMotions", load_basic_motions)):
        for split in ("TRAIN", "TEST"):
            ours = bundled.time_series_archive(problem, split)
            series, labels = load(split=split)
            assert len(series) == len(ours.labels)
            for i, theirs in enumerate(series):
                np.testing.assert_array_equal(ours.values[i, : ours.lengths[i]], theirs.T)
                assert not ours.values[i, ours.lengths[i] :].any()
            pairs = set(zip(ours.labels.tolist(), labels.tolist(), strict=True))
            symbols = task("basic_motions", {}).symbols
            names = [str(i) for i in range(1, 10)] if problem == "JapaneseVowels" else symbols
            assert names is not None and pairs == set(enumerate(names))
    images = load_digits()
    np.testing.assert_array_equal(bundled.digit_images().values[:, :, 0], images.data)
    np.testing.assert_array_equal(bundled.digit_images().labels, images.target)
    np.testing.assert_array_equal(bundled.yearly_sunspots(), sunspots.load_pandas().data["SUNACTIVITY"])
    monthly = co2.load_pandas().data["co2"].resample("MS").mean().to_numpy()
    known = ~np.isnan(monthly)
    assert np.flatnonzero(~known).tolist() == [3, 7, 71, 72, 73]
    np.testing.assert_allclose(bundled.monthly_co2()[known], monthly[known], rtol=1e-12)


def test_missing_months_are_filled_from_the_past_only() -> None:
    x = bundled.monthly_co2()
    assert x[3] == x[2] and x[7] == x[6]  # less than a year and a month of history
    for t in (71, 72, 73):
        assert x[t] == x[t - 12] + x[t - 1] - x[t - 13]


def test_a_missing_package_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_package is not installed"):
        bundled.package_file("no_such_package", "x.csv")
    with pytest.raises(FileNotFoundError, match="numpy no longer carries"):
        bundled.package_file("numpy", "x.csv")


@pytest.mark.parametrize("name", ["co2", "sunspots"])
def test_forecasting_windows_hold_the_series_in_original_units(name: str) -> None:
    built = task(name, {})
    series, look_back, horizon = built.series(), built.look_back, built.horizon  # type: ignore[attr-defined]
    scale = window_splits(series, look_back, horizon)[1]
    bounds = [0, len(series) * 6 // 10, len(series) * 8 // 10, len(series)]
    for batch, start, end in zip(built.splits(0), bounds[:-1], bounds[1:], strict=True):
        first = max(start, look_back)  # the first target
        assert len(batch) == end - horizon - first + 1  # stride 1, targets wholly inside
        for i, (inputs, targets) in enumerate(zip(batch.inputs, batch.targets, strict=True)):
            last = series[first + i - 1]
            np.testing.assert_allclose(
                inputs[:, 0].numpy() * scale + last, series[first + i - look_back : first + i], atol=1e-3
            )
            np.testing.assert_allclose(
                targets[-1].numpy() * scale + last, series[first + i : first + i + horizon], atol=1e-3
            )
            assert not batch.scored[i, :-1].any()


@pytest.mark.parametrize("name", ["co2", "sunspots"])
def test_a_forecast_wrong_by_two_units_scores_two_units(name: str) -> None:
    built = task(name, {})
    test = built.splits(0).test
    scale = window_splits(built.series(), built.look_back, built.horizon)[1]  # type: ignore[attr-defined]
    outputs = test.targets[test.scored].double() + 2.0 / scale
    mae, mse = (metric(outputs, test.targets[test.scored]) for metric in built.metrics)
    assert mae == pytest.approx(2.0) and mse == pytest.approx(4.0)


def test_the_scale_of_a_forecast_does_not_see_validation_or_test() -> None:
    series = bundled.monthly_co2()
    later = series.copy()
    later[len(series) * 6 // 10 :] += np.random.default_rng(0).normal(0, 100, len(series) - len(series) * 6 // 10)
    (splits, scale), (changed, same_scale) = window_splits(series, 36, 12), window_splits(later, 36, 12)
    assert (
        scale
        == same_scale
        == pytest.approx(
            np.std([series[t + k] - series[t] for t in origins(len(series), 36, 12).train for k in range(1, 13)])
        )
    )
    assert torch.equal(splits.train.inputs, changed.train.inputs)
    assert torch.equal(splits.train.targets, changed.train.targets)
    assert not torch.equal(splits.test.targets, changed.test.targets)


def test_the_scale_of_a_classification_task_does_not_see_the_test_split() -> None:
    parts = archive_parts("JapaneseVowels")
    other = Parts(parts.development, parts.test._replace(values=parts.test.values * 7 + 1))
    one, two = (classification_splits(p, np.random.default_rng(0)) for p in (parts, other))
    assert torch.equal(one.train.inputs, two.train.inputs) and torch.equal(one.validation.inputs, two.validation.inputs)
    both = torch.cat([torch.cat([x[:n] for x, n in zip(b.inputs, b.lengths, strict=True)]) for b in one[:2]])
    torch.testing.assert_close(both.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(both.std(0, correction=0), torch.ones(12), atol=1e-5, rtol=0)


def test_padding_stays_zero_whatever_the_mean_is() -> None:
    values = np.random.default_rng(0).normal(5, 1, (10, 4, 2))
    lengths = np.array([4, 1] * 5)
    values[1::2, 1:] = 0
    part = Labelled(values, lengths, np.zeros(10, dtype=np.int64))
    for batch in classification_splits(Parts(part, part), np.random.default_rng(0)):
        assert not batch.inputs[batch.lengths == 1, 1:].any()


def test_the_problems_of_the_archive_are_the_files_that_aeon_reads() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's imports, which are not ours to mend
        from aeon.datasets import load_gunpoint, load_italy_power_demand
    for name, load in (("gun_point", load_gunpoint), ("italy_power", load_italy_power_demand)):
        test = task(name, {}).splits(0).test
        series, labels = load(split="TEST")
        assert test.inputs.shape == (len(series), series.shape[2], 1)
        development = load(split="TRAIN")[0]
        expected = (series - development.mean()) / development.std()
        np.testing.assert_allclose(test.inputs[:, :, 0], expected[:, 0], atol=1e-5)
        assert test.targets[:, -1].tolist() == (labels.astype(int) - 1).tolist()


@pytest.mark.parametrize(("name", "per_class"), [("japanese_vowels", 6), ("basic_motions", 2)])
def test_validation_holds_a_fifth_of_every_class(name: str, per_class: int) -> None:
    built = task(name, {})
    validation = built.splits(4).validation
    assert torch.bincount(validation.targets[validation.scored]).tolist() == [per_class] * built.target.n_outputs


def test_with_nothing_held_out_every_sequence_of_the_training_file_trains_and_is_validation_too() -> None:
    usual, whole = task("japanese_vowels", {}).splits(4), task("japanese_vowels", {"held_out": 0}).splits(4)
    assert len(whole.train) == len(usual.train) + len(usual.validation) == 270
    assert torch.equal(whole.train.inputs, whole.validation.inputs)
    assert torch.equal(whole.test.inputs, usual.test.inputs)  # scaled alike, too


@pytest.mark.parametrize("share", [-0.1, 0.01, 1, "0.2", True, float("nan")])
def test_a_share_that_leaves_a_speaker_out_is_refused(share: object) -> None:
    with pytest.raises(InvalidParameter, match="japanese_vowels: held_out must be 0, or a share from 1/30"):
        task("japanese_vowels", {"held_out": share})


def warping_paths(i: int, j: int) -> list[list[tuple[int, int]]]:
    """Every path from (0, 0) to (i, j) whose steps go on by one in either sequence or in both."""
    if (i, j) == (0, 0):
        return [[(0, 0)]]
    before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
    return [[*path, (i, j)] for a, b in before if a >= 0 and b >= 0 for path in warping_paths(a, b)]


def test_a_warping_distance_is_the_cheapest_of_all_warping_paths() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(3, 5, 2)), generator.normal(size=(4, 5, 2))
    paths = warping_paths(4, 4)
    assert len(paths) == 321  # the Delannoy number D(4, 4)
    expected = [[min(sum(((x[i] - y[j]) ** 2).sum() for i, j in path) for path in paths) for y in b] for x in a]
    np.testing.assert_allclose(warping_distances(a, b), expected)


def test_the_nearest_neighbour_of_digits_equals_that_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.neighbors import KNeighborsClassifier
    images = bundled.digit_images()
    values, labels = images.values[:, :, 0], images.labels
    theirs = KNeighborsClassifier(1).fit(values[:-450], labels[:-450]).score(values[-450:], labels[-450:])
    reference = task("digits", {}).reference
    assert reference is not None and reference.value == pytest.approx(theirs)


def test_the_autoregression_of_sunspots_equals_that_of_scikit_learn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.linear_model import LinearRegression
    built = task("sunspots", {})
    x, at = bundled.yearly_sunspots(), origins(309, 33, 5)
    known, future = (
        [[x[t - 8 : t + 1] for t in part] for part in at],
        [[x[t + 1 : t + 6] for t in part] for part in at],
    )
    forecast = LinearRegression().fit(known[0], future[0]).predict(known[2])
    assert built.reference is not None
    assert built.reference.value == pytest.approx(np.abs(forecast - np.array(future[2])).mean())


def test_the_reference_of_co2_repeats_the_last_year_and_its_growth() -> None:
    built, x = task("co2", {"horizon": 14}), bundled.monthly_co2()
    errors = []
    for t in range(len(x) * 8 // 10 - 1, len(x) - 14):
        growth = x[t] - x[t - 12]
        forecast = [x[t - 12 + k] + growth for k in range(1, 13)]
        forecast += [value + growth for value in forecast[:2]]
        errors.append(np.abs(x[t + 1 : t + 15] - forecast).mean())
    assert built.reference is not None and built.reference.value == pytest.approx(np.mean(errors))
