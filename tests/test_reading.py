"""Files as people export them: each kind of oddity is read as it was meant, or named in one sentence."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_files import npz, parquet

from benchmarks.your_data import cells
from benchmarks.your_data.kinds import question
from benchmarks.your_data.reading import Roles, locate, read
from benchmarks.your_data.recording import BadInput, Recording

N_STEPS = 6
STEPS = {"target": "label", "sequence_id": "id", "time": "k"}


def opened(tmp_path: Path, content: str | bytes, name: str = "a.csv", **roles) -> Recording:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(locate(path), Roles(**roles))


def steps(ids: list[str], **columns) -> str:
    """A table of `N_STEPS` rows for each id, in the order of its steps k, with a random x and a label per sequence."""
    n = len(ids) * N_STEPS
    labels = np.repeat([*"ab"] * (len(ids) // 2 + 1), N_STEPS)[:n]
    rng = np.random.default_rng(0)
    frame = {
        "id": np.repeat(ids, N_STEPS),
        "k": list(range(N_STEPS)) * len(ids),
        "x": rng.normal(size=n).round(3),
        "label": labels,
    }
    return pd.DataFrame({**frame, **columns}).to_csv(index=False)


def series(n: int = 60, **columns) -> pd.DataFrame:
    """One series y by day."""
    y = np.sin(np.arange(n)).round(3)
    return pd.DataFrame({"day": pd.date_range("2023-12-20", periods=n).astype(str), "y": y, **columns})


def remarks(recording: Recording) -> str:
    return "\n".join(recording.remarks)


def refused(tmp_path: Path, content: str | bytes, name: str = "a.csv", **roles) -> str:
    with pytest.raises(BadInput) as error:
        opened(tmp_path, content, name, **roles)
    assert str(error.value).startswith(name) and "\n" not in str(error.value)
    return str(error.value)


# ----- ids, groups and classes ---------------------------------------------------------------------------------------


def n_sequences(recording: Recording) -> int:
    return recording.frame[recording.sequence].nunique()


@pytest.mark.parametrize(
    "ids",
    [
        [str(18720575940631700000 + i) for i in range(40)],
        [*(f"{i:03}" for i in range(1, 21)), *map(str, range(1, 21))],
        ["NA", "None", "nan", "null", "NaN", "N/A", "?", "1", "1.0", "true"],
    ],
    ids=["of 20 digits", "with leading zeros", "that look like missing values"],
)
def test_ids_and_groups_are_text(ids: list[str], tmp_path: Path) -> None:
    recording = opened(tmp_path, steps(ids), **STEPS)
    assert sorted(recording.frame["id"].unique()) == sorted(ids)
    groups = opened(tmp_path, steps(ids, site=np.repeat(ids, N_STEPS)), **STEPS, group="site")
    assert sorted(groups.frame["site"].unique()) == sorted(ids)
    assert question(recording).kind == "classification"


def test_only_the_empty_cell_is_a_missing_id(tmp_path: Path) -> None:
    assert "column id, row 1: a missing value" in refused(tmp_path, steps(["", "NA", "b"]), **STEPS)


def test_numbers_as_ids_of_a_parquet_file_are_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": np.repeat(np.arange(6.0), 3), "x": np.arange(18.0), "y": np.arange(18) // 3 % 2})
    recording = opened(tmp_path, parquet(frame), "a.parquet", target="y", sequence_id="id")
    assert recording.frame["id"].unique().tolist() == ["0", "1", "2", "3", "4", "5"]


def test_none_is_a_class_where_it_is_written_in_a_column_of_classes(tmp_path: Path) -> None:
    label = np.repeat(["None", "Drift", "NA", "", "None", "Drift"], N_STEPS)
    recording = opened(tmp_path, steps([*"abcdef"], label=label), **STEPS)
    assert sorted(recording.frame["label"].dropna().unique()) == ["Drift", "NA", "None"]
    assert recording.frame["label"].isna().sum() == N_STEPS
    assert "'NA', 'None' is read as a class, not as missing" in remarks(recording)
    recording = opened(tmp_path, steps([*"abcdef"], label=label), **STEPS, missing=("NA",))
    assert sorted(recording.frame["label"].dropna().unique()) == ["Drift", "None"]


def test_truth_has_the_classes_false_and_true(tmp_path: Path) -> None:
    truth = np.repeat([False, True] * 3, N_STEPS)
    recording = opened(tmp_path, steps([*"abcdef"], label=truth), **STEPS)
    assert sorted(recording.frame["label"].unique()) == ["False", "True"]
    frame = pd.read_csv(io.StringIO(steps([*"abcdef"], label=truth)))
    assert sorted(opened(tmp_path, parquet(frame), "a.parquet", **STEPS).frame["label"].unique()) == ["False", "True"]
    assert sorted(opened(tmp_path, npz(X=np.ones((4, 3)), y=np.arange(4) > 1), "a.npz").frame["y"].unique()) == [
        "False",
        "True",
    ]
    inputs = opened(tmp_path, steps([*"abcdef"], on=truth), **STEPS)
    assert inputs.frame["on"].tolist() == truth.astype(int).tolist()


def test_blanks_around_ids_classes_and_categories_are_stripped(tmp_path: Path) -> None:
    ids = [f"u{i // N_STEPS}{' ' * (i % 2)}" for i in range(4 * N_STEPS)]
    kind = [" red"[i % 2 :] + " " * (i % 3) for i in range(4 * N_STEPS)]
    label = [f"{' ' * (i % 2)}{'ab'[i // N_STEPS % 2]}" for i in range(4 * N_STEPS)]
    recording = opened(tmp_path, steps([*"abcd"], id=ids, label=label, kind=kind), **STEPS)
    assert n_sequences(recording) == 4 and sorted(recording.frame["label"].unique()) == ["a", "b"]
    spaced = series(kind=["a", "b"] * 30).to_csv(index=False).replace(",", ", ")
    recording = opened(tmp_path, spaced, target="y", time="day")
    assert recording.frame["y"].dtype.kind == "f" and sorted(recording.frame["kind"].unique()) == ["a", "b"]


# ----- numbers and missing values ------------------------------------------------------------------------------------


def test_a_few_words_in_a_column_of_numbers_are_missing_and_counted(tmp_path: Path) -> None:
    rain = np.random.default_rng(0).normal(5, 1, 20 * N_STEPS).round(2).astype(str)
    rain[::7] = "tr"
    ids = [f"s{i}" for i in range(20)]
    for roles in (STEPS, {**STEPS, "target": "rain"}):
        recording = opened(tmp_path, steps(ids, rain=rain), **roles)
        assert recording.frame["rain"].isna().sum() == len(rain[::7]) and recording.frame["rain"].dtype.kind == "f"
        assert f"{len(rain[::7])} values that are no numbers ('tr') are read as missing in column rain" in remarks(
            recording
        )


def test_a_column_of_codes_stays_one_of_categories(tmp_path: Path) -> None:
    house = [f"{i % 30}{'ab'[i % 2]}" if i % 3 == 0 else str(i % 30) for i in range(20 * N_STEPS)]
    term = [f"{i % 3 * 3 + 3}M" for i in range(20 * N_STEPS)]
    recording = opened(tmp_path, steps([f"s{i}" for i in range(20)], house=house, term=term), **STEPS)
    assert {str(recording.frame[name].dtype) for name in ("house", "term")} == {"category"}


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["-0.47%", "12 %", "+3%"], [-0.47, 12, 3]),
        (["2.72M", "1,000K", "0.5B", "7.1", "3"], [2.72e6, 1e6, 5e8, 7.1, 3]),
        (["1,154.00", "945.54", "-12,345,678"], [1154, 945.54, -12_345_678]),
        (["1.154,50", "945,5", "−3"], [1154.5, 945.5, -3]),
        (["1 154,5", "12", "1\u202f000,25"], [1154.5, 12, 1000.25]),
        (["$1,154.00", "$945.54", "12.5 €"], [1154, 945.54, 12.5]),
    ],
)
def test_numbers_are_read_however_they_are_written(texts: list[str], values: list[float]) -> None:
    found = cells.meaning(np.array(texts, dtype=object), np.ones(len(texts)), comma=False)
    assert found.kind == "number" and found.values is not None and found.written
    np.testing.assert_allclose(found.values, values)


def test_percent_millions_and_thousands_are_numbers_with_a_remark(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = series(
        Price=[f"{value:,.2f}" for value in 900 + 10 * np.arange(60.0)],
        Volume=[f"{value:.2f}M" for value in rng.uniform(2, 9, 60)],
        Change=[f"{value:.2f}%" for value in rng.normal(size=60)],
    )
    recording = opened(tmp_path, frame.to_csv(index=False), target="Price", time="day")
    assert recording.frame["Price"].tolist() == (900 + 10 * np.arange(60.0)).tolist()
    assert recording.frame["Volume"].between(2e6, 9e6).all() and recording.inputs == ["y", "Volume", "Change"]
    for said in ("thousands separators are read as numbers in column Price", "K, M or B are", "values with % are"):
        assert said in remarks(recording)


def test_a_file_of_decimal_commas_has_dots_between_thousands(tmp_path: Path) -> None:
    frame = series(large=[f"{1000 + i}" if i % 2 else f"{1 + i}.{i + 100}" for i in range(60)])
    content = frame.assign(y=[f"{value:.1f}".replace(".", ",") for value in frame["y"]]).to_csv(index=False, sep=";")
    recording = opened(tmp_path, content, target="y", time="day")
    assert recording.frame["large"].tolist()[:3] == [1100, 1001, 3102] and recording.frame["y"].dtype.kind == "f"
    plain = opened(
        tmp_path, series(large=[f"{1 + i}.{i + 100}" for i in range(60)]).to_csv(index=False, sep=";"), target="y"
    )
    assert plain.frame["large"].tolist()[0] == 1.1


def test_infinite_inputs_are_counted_as_missing(tmp_path: Path) -> None:
    x = np.where(np.arange(6 * N_STEPS) % 9 == 0, np.inf, 1.5)
    recording = opened(tmp_path, steps([*"abcdef"], x=x), **STEPS)
    assert recording.frame["x"].isna().sum() == 4
    assert "read as missing, because infinite: 4 values in column x" in remarks(recording)


def test_a_sentinel_is_warned_of_and_missing_where_that_is_said(tmp_path: Path) -> None:
    y = np.where(np.arange(60) % 10 == 3, -200, np.sin(np.arange(60)).round(3))
    content = series().assign(y=y).to_csv(index=False)
    recording = opened(tmp_path, content, target="y", time="day")
    assert "warning: -200 occurs in 6 rows of column y" in remarks(recording)
    assert "use --missing -200" in remarks(recording) and recording.frame["y"].notna().all()
    recording = opened(tmp_path, content, target="y", time="day", missing=("-200",))
    assert recording.frame["y"].isna().sum() == 6 and "as --missing says: 6 values" in remarks(recording)
    assert "warning" not in remarks(recording)
    recording = opened(tmp_path, parquet(series().assign(y=y)), "a.parquet", target="y", time="day", missing=("-200",))
    assert recording.frame["y"].isna().sum() == 6
    assert "warning" not in remarks(opened(tmp_path, series().to_csv(index=False), target="y", time="day"))


# ----- rows, columns and keys ----------------------------------------------------------------------------------------


def test_empty_rows_and_columns_at_the_end_are_dropped_and_date_and_time_are_one(tmp_path: Path) -> None:
    hours = pd.date_range("2004-03-10 18:00", periods=80, freq="h")
    rows = [f"{h:%d/%m/%Y};{h:%H.%M.%S};{i % 7},{i % 10};{1200 + i};;" for i, h in enumerate(hours)]
    content = "\r\n".join(["Date;Time;CO;PT08;;", *rows, *[";;;;;"] * 5]) + "\r\n"
    for roles in ({}, {"time": "Date"}):
        recording = opened(tmp_path, content, target="CO", **roles)
        assert recording.time == "Date" and recording.inputs in (["PT08"], []) and len(recording.frame) == 80
        assert recording.frame["Date"].tolist() == hours.tolist() and recording.frame["CO"].iloc[2] == 2.2
        assert "columns Date and Time together are read as the time" in remarks(recording)
        assert "because they are empty: 5 rows" in remarks(recording)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("before", ["", "sep=;\n", "# exported by a logger\n# 2024\n", "\n\n"])
def test_what_stands_before_a_header_is_skipped(before: str, encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    content = f"{mark}{before}day;air, outside;y\n" + "".join(
        f"2024-01-{i + 1:02} 10:00 UTC;{i};{i % 5}.5\n" for i in range(20)
    )
    recording = opened(tmp_path, content.encode(encoding), target="y")
    assert recording.inputs == [] and recording.time == "day" and "air, outside" in recording.ignored
    assert len(recording.frame) == 20 and recording.rows[0] == 1


def test_delimiters_beyond_the_header_are_dropped(tmp_path: Path) -> None:
    recording = opened(tmp_path, "a;y\n1;2;;\n2;3;;\n;;\n4;6;;\n", target="y")
    assert recording.frame["y"].tolist() == [2, 3, 6] and recording.rows.tolist() == [1, 2, 4]


def test_a_column_of_dates_is_the_time_and_puts_rows_in_order(tmp_path: Path) -> None:
    recording = opened(tmp_path, series()[::-1].to_csv(index=False), target="y")
    assert recording.time == "day" and recording.frame["day"].is_monotonic_increasing
    assert recording.frame["y"].tolist() == series()["y"].tolist() and recording.rows[0] == 60
    assert "column day is read as the time; name another with --time" in remarks(recording)
    several = pd.concat([series().assign(id="b"), series().assign(id="a")[::-1]])
    recording = opened(tmp_path, several.to_csv(index=False), target="y", sequence_id="id")
    assert recording.frame.groupby("id", observed=True)["day"].agg(lambda days: days.is_monotonic_increasing).all()
    ignored = opened(tmp_path, series()[::-1].to_csv(index=False), target="y", ignore=("day",))
    assert ignored.time is None and ignored.rows[0] == 1


@pytest.mark.parametrize(
    "form", ["%Y%m%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y 00:00", "%Y/%m/%d", "%d-%b-%Y", "%b %d, %Y"]
)
def test_dates_are_read_however_they_are_written(form: str, tmp_path: Path) -> None:
    frame = series()
    written = frame.assign(day=[f"{pd.Timestamp(day):{form}}" for day in frame["day"]]).to_csv(index=False)
    for roles in ({"time": "day"}, {}):
        recording = opened(tmp_path, written, target="y", **roles)
        assert recording.frame["day"].tolist() == pd.to_datetime(frame["day"]).tolist() and recording.time == "day"
    numbers = parquet(frame.assign(day=[int(f"{pd.Timestamp(day):%Y%m%d}") for day in frame["day"]]))
    assert opened(tmp_path, numbers, "a.parquet", target="y", time="day").frame["day"].iloc[0] == pd.Timestamp(
        "2023-12-20"
    )


def test_a_date_of_which_day_and_month_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    content = "when,y\n" + "".join(f"1/1/2023 0:{i:02},{i % 5}.5\n" for i in range(40))
    assert "column when, row 1: '1/1/2023 0:00' is no time" in refused(tmp_path, content, target="y", time="when")


def test_a_row_of_units_or_totals_among_dated_rows_is_left_out(tmp_path: Path) -> None:
    header, *rows = series()[::-1].to_csv(index=False).splitlines()
    content = "\n".join([header, "-,mm", *rows, "Total,12.5"])
    recording = opened(tmp_path, content, target="y")
    assert recording.rows.tolist() == list(range(61, 1, -1)) and recording.frame["y"].dtype.kind == "f"
    assert "left out, because they are empty: 1 row\n" in remarks(recording)
    assert "left out: 1 row without a date in column day (the first is row 62)" in remarks(recording)
    assert "column day, row 1: '-' is no time" in refused(tmp_path, content, target="y", time="day")


def test_a_group_may_be_the_sequence_itself(tmp_path: Path) -> None:
    recording = opened(tmp_path, steps([*"abcdef"]), **STEPS, group="id")
    assert recording.group == recording.sequence == "id" and recording.inputs == ["x"]


def test_a_repeated_hour_is_named_with_daylight_saving_time(tmp_path: Path) -> None:
    hours = pd.date_range("2021-10-30", periods=60, freq="h", tz="Europe/Berlin").tz_localize(None)
    content = pd.DataFrame({"hour": hours, "y": np.sin(np.arange(60))}).to_csv(index=False)
    said = refused(tmp_path, content, target="y", time="hour")
    assert "column hour, row 28: 2021-10-31 02:00 occurs twice, also in row 27" in said and "daylight-saving" in said
    offsets = pd.date_range("2021-10-30", periods=60, freq="h", tz="Europe/Berlin")
    content = pd.DataFrame({"hour": offsets.astype(str), "y": np.sin(np.arange(60))}).to_csv(index=False)
    assert opened(tmp_path, content, target="y", time="hour").frame["hour"].is_unique


def panel() -> pd.DataFrame:
    days = pd.date_range("2021-01-01", periods=12).astype(str)
    return pd.DataFrame(
        [
            (day, store, item, 1.5 * i)
            for i, day in enumerate(days)
            for store in ("S0", "S1")
            for item in ("i0", "i1", "i2")
        ],
        columns=["date", "store", "item", "sales"],
    )


def test_two_keys_are_named_and_work_together(tmp_path: Path) -> None:
    content = panel().to_csv(index=False)
    for roles in ({"time": "date"}, {}):
        said = refused(tmp_path, content, target="sales", sequence_id="store", **roles)
        assert "column date, row 2: 2021-01-01 occurs twice in store S0, also in row 1" in said
        assert said.endswith("--sequence-id store --sequence-id item")
        recording = opened(tmp_path, content, target="sales", sequence_id=("store", "item"), **roles)
        assert n_sequences(recording) == 6 and recording.inputs == [] and recording.time == "date"
    assert "name their column with --sequence-id" in refused(tmp_path, content, target="sales", time="date")
    assert "warning: column date holds each time once per" in remarks(
        opened(tmp_path, panel().query("item == 'i0'").to_csv(index=False), target="sales")
    )


def test_events_of_one_time_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"case": np.repeat(np.arange(20), 8), "day": np.tile([0, 1, 2, 2, 3, 4, 5, 6], 20)})
    frame = frame.assign(event=rng.choice([*"abcdefgh"], 160), y=frame["case"] % 2)
    recording = opened(tmp_path, frame.to_csv(index=False), target="event", sequence_id="case", time="day")
    assert recording.rows.tolist() == list(range(1, 161))
    assert "20 rows with the same sequence and time as another" in remarks(recording)


def test_a_trial_that_several_subjects_have_is_one_sequence_for_each(tmp_path: Path) -> None:
    frame = pd.DataFrame({"subject": np.repeat([*"abcdef"], 12), "trial": np.tile(np.repeat([1, 2], 6), 6)})
    frame = frame.assign(
        step=np.tile(np.arange(6), 12), x=np.arange(72.0) ** 0.5, label=np.tile(np.repeat([*"uv"], 6), 6)
    )
    roles = {"target": "label", "sequence_id": "trial", "time": "step", "group": "subject"}
    recording = opened(tmp_path, frame.to_csv(index=False), **roles)
    assert n_sequences(recording) == 12 and recording.inputs == ["x"] and recording.group == "subject"
    assert "subject and trial together name a sequence" in remarks(recording)


def test_a_saved_row_index_is_no_input(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(steps([f"s{i}" for i in range(12)])))
    index = np.arange(len(frame)) * 2 + np.arange(len(frame)) // 5
    for name in ("", "Unnamed: 0"):
        content = frame.assign(**{name: index}).to_csv(index=False)
        recording = opened(tmp_path, content, **STEPS)
        assert recording.inputs == ["x"] and "because they have no name" in remarks(recording)
        assert opened(tmp_path, content, **STEPS, ignore=(name or "column 5",)).inputs == ["x"]
    counted = frame.assign(number=index, counter=np.tile(np.arange(N_STEPS), 12))
    shuffled = counted.sample(frac=1, random_state=0)
    for content in (counted.to_csv(index=False), shuffled.to_csv(index=False)):
        recording = opened(tmp_path, content, **STEPS)
        assert sorted(recording.inputs) == ["counter", "x"]
        assert "because they number the rows: number" in remarks(recording)
    recording = opened(tmp_path, parquet(frame.set_index(index)), "a.parquet", **STEPS)
    assert recording.inputs == ["x"]


def test_a_column_that_determines_the_target_is_warned_of(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(steps([f"s{i}" for i in range(12)])))
    alias = frame.assign(code=frame["label"].map({"a": 1, "b": 2}))
    recording = opened(tmp_path, alias.to_csv(index=False), **STEPS)
    assert "warning: column code determines the target label" in remarks(recording) and "--ignore code" in remarks(
        recording
    )
    assert "determines" not in remarks(opened(tmp_path, frame.to_csv(index=False), **STEPS))
    scaled = series(fahrenheit=1.8 * series()["y"] + 32)
    assert "column fahrenheit determines the target y" in remarks(
        opened(tmp_path, scaled.to_csv(index=False), target="y")
    )


@pytest.mark.parametrize("target", ["label", "score"])
def test_wide_rows_are_questioned_and_read_as_sequences(target: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 12)).round(3)
    frame = pd.DataFrame(values, columns=[f"t{i}" for i in range(12)])
    frame = frame.assign(label=np.arange(30) % 3, score=np.arange(30) / 7)
    frame.loc[4, ["t10", "t11"]] = None
    roles = {"target": target, "ignore": ("label",) if target == "score" else ("score",)}
    content = frame.to_csv(index=False)
    narrow = opened(tmp_path, content, **roles)
    assert "each row is read as one step of 12 channels" in remarks(narrow) and "use --wide" in remarks(narrow)
    recording = opened(tmp_path, content, **roles, wide=True)
    assert n_sequences(recording) == 30 and recording.inputs == ["value"] and "--wide" in remarks(recording)
    lengths = recording.frame.groupby(recording.sequence).size()
    assert lengths.tolist() == [12] * 4 + [10] + [12] * 25
    assert recording.frame["value"].tolist()[:12] == values[0].tolist()
    assert question(recording).scope == "sequence"


# ----- sentences, arrays, archives -----------------------------------------------------------------------------------


def words(recording: Recording) -> list[list[str]]:
    return [group["1"].tolist() for _, group in recording.frame.groupby("sentence")]


def test_a_hashtag_is_a_token_and_a_comment_is_none(tmp_path: Path) -> None:
    recording = opened(tmp_path, "# a note\n#topic\tB\nin\tO\n\n#note without tab\n#other\tB\n#\tO\nin\tO\n", "a.conll")
    assert words(recording) == [["#topic", "in"], ["#other", "#", "in"]]
    assert words(opened(tmp_path, "# note\n#topic B\nin O\n# O\n", "a.conll")) == [["#topic", "in", "#"]]


def test_document_marks_are_skipped(tmp_path: Path) -> None:
    recording = opened(tmp_path, "-DOCSTART- -X- O\n\na X B\nb X O\n\n-DOCSTART- -X- O\n\nc X O\n", "a.conll")
    assert words(recording) == [["a", "b"], ["c"]] and "2 lines with the document mark -DOCSTART-" in remarks(recording)


def test_spaces_in_place_of_tabs_are_named(tmp_path: Path) -> None:
    line = "    ".join(["1", "New York", "y", "PROPN", *["_"] * 6])
    assert "the line uses spaces, and CoNLL-U needs tabs" in refused(tmp_path, f"# s\n{line}\n", "a.conllu")


def test_only_tabs_and_blanks_separate_columns(tmp_path: Path) -> None:
    recording = opened(tmp_path, "Preis O\n10\u00a0000   B\nEuro O\n", "a.conll")
    assert words(recording) == [["Preis", "10\u00a0000", "Euro"]]


def test_comments_need_not_be_utf_8(tmp_path: Path) -> None:
    cases = b"".join(b"%d,2,3:%s\n" % (i, b"ab"[i % 2 :][:1]) for i in range(6))
    recording = opened(tmp_path, b"# M\xfcller \x96\n@classLabel true a b\n@data\n" + cases, "a.ts")
    assert recording.frame["class"].nunique() == 2 and recording.rows[0] == 4
    assert words(opened(tmp_path, b"# M\xfcller\na\tX\n\n# \xe9\nb\tY\n", "a.conll")) == [["a"], ["b"]]
    assert "line 3: byte 0xe9" in refused(tmp_path, b"# M\xfcller\na\tX\n\xe9\tY\n", "a.conll")


def test_channels_first_is_questioned_and_read(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 3, 20))
    data = npz(X=x, y=np.arange(10) % 2)
    recording = opened(tmp_path, data, "a.npz")
    assert "10 sequences of 3 steps and 20 channels; if it is (sequences, channels, steps)" in remarks(recording)
    recording = opened(tmp_path, data, "a.npz", channels_first=True)
    assert len(recording.frame) == 200 and recording.inputs == [f"X[:, :, {c}]" for c in range(3)]
    np.testing.assert_array_equal(recording.frame["X[:, :, 1]"].to_numpy()[:20], x[0, 1])
    assert "channels-first" not in remarks(opened(tmp_path, npz(X=x.swapaxes(1, 2), y=np.arange(10) % 2), "a.npz"))
    assert "--channels-first needs X of shape (B, C, T)" in refused(
        tmp_path, npz(X=x[:, 0], y=np.arange(10)), "a.npz", channels_first=True
    )


def test_big_endian_arrays_are_read(tmp_path: Path) -> None:
    x, y = np.arange(24.0).reshape(4, 3, 2), np.array([0, 1, 0, 1])
    lengths = np.array([3, 2, 3, 1])
    one = opened(tmp_path, npz(X=x, y=y, lengths=lengths), "a.npz")
    two = opened(tmp_path, npz(X=x.astype(">f4"), y=y.astype(">i2"), lengths=lengths.astype(">i8")), "b.npz")
    pd.testing.assert_frame_equal(one.frame, two.frame)
    text = opened(tmp_path, npz(X=x, y=np.array(["a", "b", "a", "é"]).astype(">U1")), "c.npz")
    assert sorted(text.frame["y"].unique()) == ["a", "b", "é"]


# ----- small files that would need much memory -----------------------------------------------------------------------


def deflated(tmp_path: Path, shape: tuple[int, ...], n_bytes: int) -> bytes:
    """An archive whose X has this shape and so many zero bytes, compressed."""
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("X.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for _ in range(n_bytes // 10**6):
                file.write(bytes(10**6))
        with archive.open("y.npy", "w") as file:
            np.lib.format.write_array(file, np.arange(shape[0]))
    return path.read_bytes()


def many_rows(n: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array(np.zeros(n, np.int8)), "y": pa.array(np.zeros(n, np.int8))}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npz", lambda path: deflated(path, (1000, 750, 1000), 3 * 10**9), "X unpacks to 750,000,000 values"),
        ("b.npz", lambda path: deflated(path, (10**6, 10**6), 10**6), "X is broken: it should hold 1,000,000,000,000"),
        (
            "c.npz",
            lambda path: npz(X=np.zeros((3, 2, 3000), "f2"), y=np.arange(3)),
            "X has 3,000 channels; at most 2,000",
        ),
        (
            "d.npz",
            lambda path: npz(X=np.zeros((300, 2)), y=np.array(["x" * 10**5] * 300)),
            "y unpacks to 300 values in 120,",
        ),
        ("a.parquet", lambda path: many_rows(10**8), "100,000,000 rows of 2 columns; at most 40,000,000 values"),
        (
            "a.ts",
            lambda path: b"@classLabel true a b\n@data\n" + b":".join([b"1"] * 10**6) + b":a\n",
            "999,999 channels|1,000,000 ch",
        ),
        (
            "a.csv",
            lambda path: b",".join(b"c%d" % i for i in range(10**5)) + b"\n" + b"," * (10**5 - 1),
            "100,000 columns; at most",
        ),
        ("a.conll", lambda path: b"\t".join([b"x"] * 10**5), "line 1: 100,000 columns; at most 100"),
    ],
)
@pytest.mark.slow
def test_what_would_not_fit_into_memory_is_refused_before_it_is_unpacked(name, make, message, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(make(tmp_path))
    said, seconds, gigabytes = measured(tmp_path / name)
    assert re.search(message, said), said
    assert seconds < 20 and gigabytes < 1


def test_long_class_names_are_kept_once(tmp_path: Path) -> None:
    long = "a" * 10_000
    cases = "".join(",".join(["1"] * 3000) + f":{long if i % 2 else 'b'}\n" for i in range(100))
    (tmp_path / "a.ts").write_text(f"@classLabel true {long} b\n@data\n{cases}")
    said, seconds, gigabytes = measured(tmp_path / "a.ts")
    assert said.startswith("read 300000") and seconds < 20 and gigabytes < 1


def measured(path: Path) -> tuple[str, float, float]:
    """What a new process with 2 GiB of memory says of a file, the seconds, and the gigabytes beyond those of its imports."""
    code = """
        import resource, sys, time
        from benchmarks.your_data.reading import Roles, locate, read
        from benchmarks.your_data.recording import BadInput
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        before, start = peak(), time.monotonic()
        roles = Roles("y" if sys.argv[1].endswith(("parquet", "csv")) else None)
        try:
            said = f"read {len(read(locate(sys.argv[1]), roles).frame)}"
        except BadInput as error:
            said = str(error)
        print(said, time.monotonic() - start, peak() - before, sep="\\n")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    return lines[0], float(lines[1]), float(lines[2])
