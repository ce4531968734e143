"""Reading one's own files: parsers, kinds, splits that leak nothing, and batches against plain Python."""

from __future__ import annotations

import io
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tasks.bundled import package_file, time_series_archive
from benchmarks.tasks.task import data_digest
from benchmarks.tasks.your_data import YourData
from benchmarks.your_data import archive, arrays, plain, tables
from benchmarks.your_data.kinds import Question, question
from benchmarks.your_data.parts import DEVELOPMENT, TEST, TRAIN, VALIDATION, parts
from benchmarks.your_data.prepared import Prepared
from benchmarks.your_data.reading import Roles, locate, read
from benchmarks.your_data.recording import BadInput, Recording
from benchmarks.your_data.sequences import MOST_STEPS, prepare
from models.sequences import RealInput


def recorded(frame: pd.DataFrame, tmp_path: Path, **roles) -> Recording:
    path = tmp_path / "own.csv"
    frame.to_csv(path, index=False)
    return read(locate(path), Roles(**roles))


def ready(recording: Recording, kind: str = "auto", horizon: int | None = None) -> Prepared:
    asked = question(recording, kind, horizon)
    return prepare(recording, asked, parts(recording, asked))


def long_table(n_sequences: int, n_steps: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = n_sequences * n_steps
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n_sequences), n_steps),
            "t": np.tile(np.arange(n_steps), n_sequences),
            "x": rng.normal(size=n),
            "kind": rng.choice(["a", "b", "c"], n),
            "y": np.repeat(np.arange(n_sequences) % 3, n_steps),
            "z": rng.normal(size=n),
        }
    )


# ----- parsers -------------------------------------------------------------------------------------------------------


def test_a_ts_file_is_read_as_the_archive_has_it() -> None:
    folder = package_file("aeon", "datasets", "data", "JapaneseVowels")
    recording = read(locate(folder), Roles())
    made = ready(recording)
    for split, part in (("TRAIN", DEVELOPMENT), ("TEST", TEST)):
        known = time_series_archive("JapaneseVowels", split)
        windows = made.windows.select(made.windows.part == part)
        np.testing.assert_array_equal(windows.length, known.lengths)
        names = [made.answers.classes[k] for k in made.answers.values[windows.start]]
        assert names == [str(label + 1) for label in known.labels]
        rows = recording.frame[[f"channel {c}" for c in range(1, 13)]].to_numpy()
        for start, length, values in zip(windows.start, windows.length, known.values, strict=True):
            np.testing.assert_array_equal(rows[start : start + length], values[:length])


def test_values_of_a_ts_regression_and_missing_ones(tmp_path: Path) -> None:
    text = "# note\n@targetLabel true\n@data\n" + "".join(f"1,?,{i}:{i / 4}\n" for i in range(8))
    recording = archive.ts([archive.File(text.encode(), "a.ts", None)])
    assert recording.frame["value"].tolist() == [i / 4 for i in range(8) for _ in range(3)]
    assert recording.frame["channel 1"].isna().sum() == 8 and recording.rows[3] == 5
    assert question(recording).kind == "regression"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_delimiter_quotes_bom_and_windows_line_ends(delimiter: str) -> None:
    rows = [["na me", "x", "say"], ["a", "1.5", f'"q{delimiter}\nr"'], ["b", "", "plain"]]
    data = "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows) + "\r\n"
    frame = tables.csv(data.encode(), "a.csv").frame
    assert list(frame.columns) == ["na me", "x", "say"] and frame["x"].tolist()[0] == 1.5
    assert math.isnan(frame["x"].iloc[1]) and frame["say"].tolist() == [f"q{delimiter}\nr", "plain"]


def test_a_decimal_comma_is_read_where_semicolons_separate() -> None:
    assert tables.csv(b"a;b\n1,5;x\n-2,25;y\n", "a.csv").frame["a"].tolist() == [1.5, -2.25]


def test_every_type_of_a_column_becomes_numbers_dates_or_categories() -> None:
    frame = tables.csv(b"clock,day,flag,word\n12:30:00,2024-05-01,true,a\n01:00:05,2024-05-02,false,b\n", "a.csv").frame
    assert frame["clock"].tolist() == [45_000.0, 3_605.0] and frame["flag"].tolist() == [1, 0]
    assert frame["day"].dtype.kind == "M" and frame["word"].dtype == "category"
    table = pa.table(
        {
            "decimal": pa.array([Decimal("1.5"), None]),
            "time": pa.array([1, 2], pa.time64("us")),
            "wait": pa.array([1, 2], pa.duration("s")),
            "code": pa.array(["x", "y"]).dictionary_encode(),
            "small": pa.array([1, 2], pa.float32()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    frame = tables.parquet(buffer.getvalue(), "a").frame
    assert [frame[name].dtype.kind for name in table.column_names] == ["f", "f", "f", "O", "f"]


def test_csv_and_parquet_give_the_same(tmp_path: Path) -> None:
    frame = long_table(8, 5).assign(when=pd.date_range("2024-01-01", periods=40, freq="h"), flag=[True, False] * 20)
    frame.loc[3, ["x", "kind"]] = None
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    one = tables.csv(frame.to_csv(index=False).encode(), "a").frame
    two = tables.parquet(buffer.getvalue(), "a").frame
    assert list(one.columns) == list(two.columns)
    for column in frame.columns:
        if column != "flag":
            same = one[column].astype(object).where(one[column].notna(), None).tolist()
            assert same == two[column].astype(object).where(two[column].notna(), None).tolist(), column


def test_arrays_with_lengths_and_an_answer_per_step_or_per_sequence() -> None:
    x = np.arange(24.0).reshape(2, 4, 3)
    for y in (np.array(["a", "b"]), np.array([[1, 2, 3, 4], [5, 6, 7, 8]])):
        buffer = io.BytesIO()
        np.savez(buffer, X=x, y=y, lengths=np.array([4, 2]))
        frame = arrays.npz(buffer.getvalue(), "a.npz").frame
        assert frame["sequence"].tolist() == [0] * 4 + [1] * 2
        assert frame["X[:, :, 1]"].tolist() == [1, 4, 7, 10, 13, 16]
        assert frame["y"].tolist() == (["a"] * 4 + ["b"] * 2 if y.ndim == 1 else [1, 2, 3, 4, 5, 6])


def test_sentences_of_both_kinds() -> None:
    recording = plain.conll(b"# c\nthe D\ndog N\n\n\n#tag X\nruns V\n", "a.conll")
    assert recording.frame["sentence"].tolist() == [0, 0, 1, 1] and recording.rows.tolist() == [2, 3, 6, 7]
    assert recording.target == "2"
    universal = "# sent\n1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n" + "".join(
        f"{i}\tw{i}\tl\tNOUN\t_\t_\t0\tr\t_\t_\n" for i in (1, 2)
    )
    recording = plain.conll(universal.encode(), "a.conllu")
    assert recording.frame["FORM"].tolist() == ["w1", "w2"] and recording.target == "UPOS"
    assert recording.inputs == ["FORM"]


def test_a_text_is_its_characters() -> None:
    recording = plain.characters("é\nz😀".encode(), "a.txt")
    assert recording.frame["character"].tolist() == ["é", "\n", "z", "😀"] and recording.rows.tolist() == [1, 1, 2, 2]


soup = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet="@data:,;\n\t1?.x\"'# -e", max_size=200).map(str.encode),
    st.lists(st.sampled_from(["@data", "@classLabel true a b", "1,2:a", "1:2:b", "", "# x", "?,1:a"]), max_size=8).map(
        lambda rows: "\n".join(rows).encode()
    ),
)


@settings(max_examples=300, deadline=None)
@given(soup)
def test_a_parser_parses_or_says_in_a_sentence_why_not(data: bytes) -> None:
    parsers = (
        lambda: tables.csv(data, "f"),
        lambda: tables.parquet(data, "f"),
        lambda: archive.ts([archive.File(data, "f", None)]),
        lambda: arrays.npz(data, "f"),
        lambda: plain.conll(data, "f"),
        lambda: plain.conll(data, "f.conllu"),
        lambda: plain.characters(data, "f"),
    )
    for parse in parsers:
        try:
            recording = parse()
        except BadInput as error:
            assert str(error).startswith("f") and "\n" not in str(error)
        else:
            assert len(recording.frame) == len(recording.rows) > 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_archive_of_arrays_or_columns_is_read_or_refused(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    if data.draw(st.booleans()):
        np.savez_compressed(buffer, X=np.ones((3, 2)), y=np.arange(3))
    else:
        pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}).to_parquet(buffer)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    parse = arrays.npz if damaged[:2] == b"PK" else tables.parquet
    try:
        parse(bytes(damaged), "f")
    except BadInput as error:
        assert "\n" not in str(error)


# ----- kinds ---------------------------------------------------------------------------------------------------------

ID = {"sequence_id": "id"}


@pytest.mark.parametrize(
    ("roles", "options", "kind", "scope"),
    [
        ({"target": "y", **ID}, {}, "classification", "sequence"),
        ({"target": "kind", **ID}, {}, "tagging", "step"),
        ({"target": "z", **ID}, {}, "regression", "step"),
        ({"target": "score", **ID}, {}, "regression", "sequence"),
        ({"target": "score", **ID, "time": "t"}, {"horizon": 2}, "forecasting", "sequence"),
        ({"target": "z", "time": "t", **ID, "ignore": ("x", "kind", "y", "score")}, {}, "forecasting", "sequence"),
        ({"target": "kind", **ID, "ignore": ("x", "t", "y", "z", "score")}, {}, "next_symbol", "step"),
        ({"target": "y", **ID}, {"kind": "regression"}, "regression", "sequence"),
        ({"target": "y"}, {}, "tagging", "step"),
    ],
)
def test_the_kind_follows_from_the_target(roles: dict, options: dict, kind: str, scope: str, tmp_path: Path) -> None:
    frame = long_table(9, 8).assign(score=lambda f: f["id"] * 1.5)
    found = question(recorded(frame, tmp_path, **roles), **options)
    assert (found.kind, found.scope) == (kind, scope) and found.why and str(found)


def test_rows_are_put_in_order_of_time_and_row_numbers_are_no_inputs(tmp_path: Path) -> None:
    frame = long_table(6, 5).assign(number=np.arange(30))
    shuffled = frame.sample(frac=1, random_state=1)
    recording = recorded(shuffled, tmp_path, target="y", sequence_id="id", time="t", ignore=("number",))
    back = recording.frame.sort_values(["id", "t"], kind="stable")
    assert back["x"].tolist() == pytest.approx(frame["x"].tolist())
    for _, rows in recording.frame.groupby("id"):
        assert rows["t"].is_monotonic_increasing and np.ptp(rows.index) == len(rows) - 1
    assert "number" not in recorded(frame, tmp_path, target="y", sequence_id="id").inputs
    dates = frame.assign(t=pd.date_range("2024-03-01", periods=30, tz="Europe/Berlin").astype(str))
    assert recorded(dates, tmp_path, target="y", sequence_id="id", time="t").frame["t"].is_monotonic_increasing


# ----- splits --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n_sequences=st.integers(6, 40), n_copies=st.integers(0, 20), seed=st.integers(0, 5), grouped=st.booleans())
def test_no_sequence_copy_or_group_is_in_two_splits(
    tmp_path_factory, n_sequences: int, n_copies: int, seed: int, grouped: bool
) -> None:
    frame = long_table(n_sequences, 3, seed).assign(score=lambda f: f["id"] * 0.5, patient=lambda f: f["id"] // 2)
    copies = frame[frame["id"] < n_copies].assign(id=lambda f: f["id"] + 1000)
    frame = pd.concat([frame, copies], ignore_index=True)
    roles = {"target": "score", "sequence_id": "id", "ignore": ("t",), **({"group": "patient"} if grouped else {})}
    roles = roles if grouped else {**roles, "ignore": ("t", "patient")}
    recording = recorded(frame, tmp_path_factory.mktemp("own"), **roles)
    if grouped and n_sequences < 10:
        return
    made = ready(recording)
    seen: dict[object, int] = {}
    for which, windows in enumerate(made.choose(seed)):
        for start in windows.start:
            row = recording.frame.iloc[start]
            same = row["patient"] if grouped else float(row["x"])
            assert seen.setdefault(same, which) == which
    assert set(seen.values()) == {0, 1, 2}
    assert sum(map(len, made.choose(seed))) == frame["id"].nunique()


def test_the_test_split_ignores_the_seed_and_validation_does_not(tmp_path: Path) -> None:
    made = ready(recorded(long_table(30, 4), tmp_path, target="y", sequence_id="id"))
    first, again, other = (made.splits(seed) for seed in (1, 1, 2))
    assert data_digest(first) == data_digest(again) != data_digest(other)
    assert data_digest(first._replace(train=other.train, validation=other.validation)) == data_digest(other)
    classes = [set(part.targets[part.scored].tolist()) for part in first]
    assert classes == [{0, 1, 2}] * 3


@pytest.mark.parametrize("with_time", [True, False])
def test_a_forecast_sees_nothing_of_its_future_nor_trains_on_a_later_split(with_time: bool, tmp_path: Path) -> None:
    n, horizon = 200, 3
    y = np.cumsum(np.random.default_rng(3).normal(size=n)).round(4)
    frame = pd.DataFrame({"t": np.arange(n) + 7, "y": y})
    roles = {"target": "y", **({"time": "t"} if with_time else {"ignore": ("t",)})}
    made = ready(recorded(frame, tmp_path, **roles), horizon=horizon)
    assert made.look_back == 32
    scale = made.answers.scale
    spans = []
    for part, batch in zip(made.choose(0), made.splits(0), strict=True):
        batch.validate()
        last = part.start + part.length - 1
        for i, at in enumerate(last):
            expected = [(y[at + k] - y[at]) / scale for k in range(1, horizon + 1)]
            np.testing.assert_allclose(batch.targets[i, -1], expected, rtol=1e-4, atol=1e-5)
            shown = (y[at - 31 : at + 1] - y[at]) / scale
            np.testing.assert_allclose(batch.inputs[i, :, 0], shown, rtol=1e-4, atol=1e-4)
        spans.append((int(last.min()) + 1, int(last.max()) + horizon))
    assert spans[0][1] < spans[1][0] <= spans[1][1] < spans[2][0] and spans[2][1] == n - 1
    changes = [y[t + k] - y[t] for t in range(31, spans[0][1] - horizon + 1) for k in range(1, horizon + 1)]
    assert scale == pytest.approx(np.std(changes))


def test_several_series_by_a_common_clock_are_cut_at_common_times(tmp_path: Path) -> None:
    frame = pd.concat(
        pd.DataFrame({"id": name, "day": pd.date_range(start, periods=100), "y": np.arange(100.0) % 7})
        for name, start in (("a", "2024-01-01"), ("b", "2024-02-01"))
    )
    recording = recorded(frame, tmp_path, target="y", sequence_id="id", time="day")
    made = parts(recording, question(recording, horizon=2))
    days = recording.frame["day"]
    assert days[made.rows == TRAIN].max() < days[made.rows == VALIDATION].min()
    assert days[made.rows == VALIDATION].max() < days[made.rows == TEST].min()


def test_one_long_sequence_is_cut_in_time_into_windows_that_cover_it_once(tmp_path: Path) -> None:
    recording = recorded(long_table(1, 1000).drop(columns="id"), tmp_path, target="kind", time="t")
    made = ready(recording)
    covered = np.concatenate(
        [
            np.arange(s + lead, s + n)
            for s, n, lead in zip(made.windows.start, made.windows.length, made.windows.lead, strict=True)
        ]
    )
    assert sorted(covered) == list(range(1000)) and (made.windows.length - made.windows.lead).max() <= 128
    order = [int((part.start + part.lead).min()) for part in made.choose(0)]
    assert order == [0, 600, 800]


def test_the_splits_of_the_file_are_taken(tmp_path: Path) -> None:
    frame = long_table(12, 4)
    frame["part"] = np.where(frame["id"] < 6, "train", np.where(frame["id"] < 8, "valid", "TEST"))
    made = ready(recorded(frame, tmp_path, target="y", sequence_id="id", split="part"))
    assert made.counts() == (6, 2, 4)
    assert data_digest(made.splits(0)) == data_digest(made.splits(1))


# ----- batches -------------------------------------------------------------------------------------------------------


def test_scaling_and_vocabulary_are_those_of_the_development_part(tmp_path: Path) -> None:
    frame = long_table(20, 5)
    recording = recorded(frame, tmp_path, target="y", sequence_id="id", ignore=("t", "kind", "z"))
    made = ready(recording)
    development = np.ones(len(frame), dtype=bool)
    for start, length in zip(made.choose(0)[2].start, made.choose(0)[2].length, strict=True):
        development[start : start + length] = False
    x = recording.frame["x"].to_numpy()
    expected = (x - x[development].mean()) / x[development].std()
    np.testing.assert_allclose(made.steps.values[:, 0], expected, rtol=1e-4, atol=1e-5)

    sentences = ["\n".join(["a\tD", "b\tN"] * n) for n in range(1, 20)]
    words = plain.conll("\n\n".join([*sentences, "zebra\tN"]).encode(), "w.conll")
    made = ready(words)
    assert set(made.steps.symbols or ()) == {"<other>", "a", "b"} and made.answers.classes == ("D", "N")


def test_the_time_between_rows_is_told_where_it_varies_by_more_than_the_length_of_months(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    months = pd.DataFrame({"when": pd.date_range("2010-01-01", periods=150, freq="MS"), "y": rng.normal(size=150)})
    assert ready(recorded(months, tmp_path, target="y", time="when"), horizon=2).steps.channels == ("y",)
    visits = months.assign(when=np.cumsum(rng.exponential(size=150)))
    made = ready(recorded(visits, tmp_path, target="y", time="when"), horizon=2)
    assert made.steps.channels == ("y", "when since the step before")


def test_steps_without_a_target_are_read_and_not_scored(tmp_path: Path) -> None:
    frame = long_table(10, 6)
    frame.loc[frame["t"] % 2 == 0, "z"] = None
    made = ready(recorded(frame, tmp_path, target="z", sequence_id="id"))
    for batch in made.splits(0):
        batch.validate()
        assert batch.scored[:, 1::2].all() and not batch.scored[:, ::2].any()
    known = frame["z"].dropna()
    assert any("30 steps without a target" in remark for remark in made.remarks)
    assert made.answers.scale == pytest.approx(known.std(), rel=0.3)


def test_a_text_asks_for_its_next_character() -> None:
    text = "the quick brown fox jumps over the lazy dog\n" * 60
    made = ready(plain.characters(text.encode(), "a.txt"))
    names = made.steps.symbols
    assert names is not None
    for windows, batch in zip(made.choose(0), made.splits(0), strict=True):
        batch.validate()
        for i, (start, length) in enumerate(zip(windows.start, windows.length, strict=True)):
            assert "".join(names[k] for k in batch.inputs[i, :length]) == text[start : start + length]
            assert "".join(names[k] for k in batch.targets[i, :length]) == text[start + 1 : start + length + 1]


def test_long_sequences_are_averaged_and_large_files_bounded(tmp_path: Path) -> None:
    recording = recorded(long_table(12, 1300), tmp_path, target="y", sequence_id="id", ignore=("t", "kind", "z"))
    made = ready(recording)
    assert set(made.windows.length) == {434} and len(made.steps.values) == 12 * 434
    full = prepare(recording, made.question, parts(recording, made.question))
    np.testing.assert_array_equal(full.steps.values, made.steps.values)
    x = recording.frame["x"].to_numpy()[:1300]
    scaled = made.steps.values[:434, 0] * np.std(x)  # up to a shift and the other sequences' part in the scale
    blocks = np.array([x[i : i + 3].mean() for i in range(0, 1300, 3)])
    assert np.corrcoef(scaled, blocks)[0, 1] > 0.9999

    many = ready(recorded(long_table(1700, 400), tmp_path, target="kind", sequence_id="id", ignore=("t", "z")))
    is_test = many.windows.part == TEST
    for test, most in MOST_STEPS.items():
        assert (
            0.95 * min(most, 1700 * 400 * (0.2 if test else 0.8)) < many.windows.length[is_test == test].sum() <= most
        )
    assert any("steps are used" in remark for remark in many.remarks)


def test_a_task_refuses_a_file_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    long_table(9, 4).to_csv(path, index=False)
    task = YourData(str(path), locate(path).digest(), "y", "id")
    assert task.input.max_length == 4 and task.symbols == ("0", "1", "2")
    path.write_text(path.read_text() + "\n")
    with pytest.raises(BadInput, match=r"own\.csv: the file is not what it was"):
        YourData(str(path), task.sha256, "y", "id", ignore=("t",)).input.max_length  # noqa: B018
    assert YourData(str(path), task.sha256, "y", "id", ignore=("x",)).metrics[0].name == "accuracy"


@pytest.mark.parametrize(
    "wrong", [{"file": ""}, {"kind": "magic"}, {"horizon": 0}, {"causal": "yes"}, {"kind": "next_symbol"}, {"time": 3}]
)
def test_a_task_refuses_parameters_that_are_none(wrong: dict) -> None:
    with pytest.raises(ValueError, match="your_data: "):
        YourData(**{"file": "a.csv", "sha256": "0", **wrong})


def test_a_question_says_what_it_asks() -> None:
    assert str(Question("forecasting", "sequence", "", 12)) == "forecasting: the next 12 steps"


def test_models_are_told_which_channels_are_masks(tmp_path: Path) -> None:
    frame = long_table(30, 6)
    frame.loc[frame.index % 4 == 1, "x"] = math.nan
    made = ready(recorded(frame, tmp_path, target="y", sequence_id="id", time="t"))
    assert isinstance(made.input, RealInput)
    assert [made.steps.channels[mask] for mask in made.input.masks] == ["x, known"]
    told = made.batch(made.windows).inputs[..., made.input.masks[0]]
    assert told.flatten().tolist() == frame["x"].notna().astype(float).tolist()
