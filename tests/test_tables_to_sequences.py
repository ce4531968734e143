"""Tables to sequences, against the same computed row by row in plain Python."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tables_to_sequences import LEAST_ROWS, MOST_CATEGORIES, fit, gaps, padded

numbers = st.one_of(st.none(), st.floats(-1e3, 1e3).map(lambda x: round(x, 2)), st.just(math.inf))
rows_strategy = st.lists(
    st.tuples(st.integers(0, 3), numbers, st.sampled_from(["a", "b", "c", None])), min_size=1, max_size=60
)


def table(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "value", "kind"])
    return frame.astype({"value": float}).assign(step=frame.groupby("id").cumcount() ** 2)


def carried(frame: pd.DataFrame, column: str) -> list:
    """The last known value of each row's sequence, None before the first."""
    last: dict[int, object] = {}
    out = []
    for key, value in zip(frame["id"], frame[column], strict=True):
        if is_known(value):
            last[key] = value
        out.append(last.get(key))
    return out


def is_known(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


@settings(max_examples=60, deadline=None)
@given(rows_strategy, rows_strategy)
def test_every_channel_is_what_plain_python_makes_of_it(train_rows: list[tuple], rows: list[tuple]) -> None:
    train, frame = table(train_rows), table(rows)
    prepared = fit(train, {"value": "number", "kind": "category"}, sequence="id")
    made = prepared.apply(frame)
    assert made.shape == (len(frame), len(prepared.channels)) and made.dtype == np.float32 and np.isfinite(made).all()
    channels = dict(zip(prepared.channels, made.T, strict=True))

    known = [value for value in train["value"] if is_known(value)]
    assert ("value" in channels) == (len(set(known)) > 1)
    if "value" in channels:
        mean, deviation = np.mean(known), np.std(known)
        expected = [0.0 if x is None else (x - mean) / deviation for x in carried(frame, "value")]
        np.testing.assert_allclose(channels["value"], expected, rtol=1e-4, atol=1e-4)
    assert [prepared.channels[i] for i in prepared.masks] == [name for name in prepared.channels if "known" in name]
    assert ("value, known" in channels) == (0 < len(known) < len(train))
    if "value, known" in channels:
        assert channels["value, known"].tolist() == [float(is_known(x)) for x in frame["value"]]

    kinds = [value for value in train["kind"] if value is not None]
    for name in "abc":
        own = len(set(kinds)) > 1 and kinds.count(name) >= LEAST_ROWS
        assert (f"kind = {name}" in channels) == own
        if own:
            assert channels[f"kind = {name}"].tolist() == [float(x == name) for x in carried(frame, "kind")]
    if "kind = other" in channels:
        rest = [x is not None and f"kind = {x}" not in channels for x in carried(frame, "kind")]
        assert channels["kind = other"].tolist() == [float(x) for x in rest]


@settings(max_examples=30, deadline=None)
@given(rows_strategy)
def test_what_varied_in_training_has_mean_zero_and_deviation_one_there(rows: list[tuple]) -> None:
    frame = table(rows)
    prepared = fit(frame, {"value": "number"}, sequence="id", time="step")
    channels = dict(zip(prepared.channels, prepared.apply(frame).astype(float).T, strict=True))
    since = channels.get("step since the step before")
    assert since is None or (abs(since.mean()) < 1e-5 and abs(since.std() - 1) < 1e-5)
    if "value" in channels:
        known = channels["value"][[is_known(x) for x in frame["value"]]]
        assert abs(known.mean()) < 1e-4 and abs(known.std() - 1) < 1e-4


def test_the_time_since_the_step_before_restarts_with_every_sequence() -> None:
    frame = pd.DataFrame({"id": [1, 2, 1, 2, 1], "t": [5.0, 1.0, 7.0, 2.0, 11.0]})
    assert gaps(frame["t"], frame["id"]).tolist() == [0, 0, 2, 1, 4]
    dates = pd.to_datetime(frame["t"], unit="h").rename("t")
    assert gaps(dates, frame["id"]).tolist() == [0, 0, 7200, 3600, 14400]
    (channel,) = fit(frame, {}, "id", "t").columns
    expected = np.log1p(np.array([0, 0, 2, 1, 4]) / 2)  # 2 is the median of 2, 1 and 4
    made = fit(frame, {}, "id", "t").apply(frame)[:, 0]
    np.testing.assert_allclose(made, (expected - expected.mean()) / expected.std(), rtol=1e-6)
    assert channel.column == "t"


def test_what_does_not_vary_in_training_makes_no_channel() -> None:
    frame = pd.DataFrame({"one": [0.1] * 30, "none": [None] * 30, "kind": ["x"] * 30, "t": range(30)})
    prepared = fit(frame, {"one": "number", "none": "number", "kind": "category"}, time="t")
    assert prepared.channels == () and prepared.constant == ("one", "none", "kind", "t")
    assert prepared.apply(frame.assign(one=3.0)).shape == (30, 0)


def test_rare_categories_share_a_channel_and_unseen_ones_go_with_them() -> None:
    values = [str(i) for i in range(MOST_CATEGORIES + 2) for _ in range(LEAST_ROWS)] + ["rare"]
    prepared = fit(pd.DataFrame({"kind": values}), {"kind": "category"})
    assert len(prepared.channels) == MOST_CATEGORIES + 1 and prepared.channels[-1] == "kind = other"
    made = prepared.apply(pd.DataFrame({"kind": ["rare", "never seen", "0"]}))
    assert made[:, -1].tolist() == [1, 1, 0] and made.sum(1).tolist() == [1, 1, 1]


def test_whole_numbers_are_one_category_whether_or_not_another_row_lacks_one() -> None:
    prepared = fit(pd.DataFrame({"kind": [1, 2] * LEAST_ROWS}), {"kind": "category"})
    assert prepared.channels == ("kind = 1", "kind = 2")
    assert prepared.apply(pd.DataFrame({"kind": [2.0, None]})).tolist() == [[0, 1], [0, 1]]


def test_padding_keeps_the_order_of_sequences_and_of_steps() -> None:
    placed, lengths = padded(np.array([[1.0], [2], [3], [4]]), pd.Series(["b", "a", "b", None]))
    assert placed[:, :, 0].tolist() == [[1, 3], [2, 0], [4, 0]] and lengths.tolist() == [2, 1, 1]
    flat, _ = padded(np.array([7, 8]), pd.Series([0, 0]))
    assert flat.tolist() == [[7, 8]] and flat.dtype == np.int64


@pytest.mark.parametrize(
    ("frame", "kinds", "time", "sentence"),
    [
        ({"a": [1, 2]}, {"b": "number"}, None, "no column b; the columns are a"),
        ({"a": [1, "x"]}, {"a": "number"}, None, "column a: row 2 is 'x', which is no number"),
        ({"a": []}, {"a": "number"}, None, "training rows are empty"),
        ({"t": [2, 1]}, {}, "t", "column t: row 2 is earlier than the row before"),
        ({"t": [1, None]}, {}, "t", "column t: row 2 has no time"),
        ({"t": ["Monday", "x"]}, {}, "t", "times must be numbers or dates"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    frame: dict, kinds: dict, time: str | None, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit(pd.DataFrame(frame), kinds, time=time)
