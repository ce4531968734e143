"""Random and damaged files of every format: a reading or one sentence, never a traceback."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bad_files import conll, npz, parquet, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.your_data.kinds import question
from benchmarks.your_data.parts import parts
from benchmarks.your_data.reading import Roles, locate, read
from benchmarks.your_data.recording import BadInput
from benchmarks.your_data.sequences import prepare

CELLS = (
    *(
        "",
        " ",
        "0",
        "1",
        "-200",
        "001",
        "1.5",
        "1,5",
        "1.154,00",
        "1,154.00",
        "12%",
        "2.72M",
        "1e400",
        "-inf",
        "nan",
        "NA",
        "None",
    ),
    *(
        "tr",
        "2024-01-01",
        "01/02/2024",
        "31.12.2024 23:59",
        "2024-13-01",
        "20240101",
        "12:30",
        "25:00",
        "True",
        "False",
    ),
    *(
        "18720575940631700000",
        "é",
        "😀",
        "\u00a0",
        "a b",
        "#x",
        "−1",
        "9" * 400,
        "x" * 300,
        "2024-10-27T02:00+02:00",
        "1_0",
        "0x1",
    ),
)
NAMES = ("id", "t", "y", "x", "", " z ", "Unnamed: 0", "date", "Time", "hour", "x, y", "1", "class", "value", "step")
TOKENS = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r\n",
        b"\n\n",
        b"\t",
        b",",
        b";",
        b'"',
        b"'",
        b":",
        b"?",
        b"@data\n",
        b"#",
        b"# ",
    ),
    *(
        b"-DOCSTART- O\n",
        b"\xc2\xa0",
        b"1-2\t",
        b"nan",
        b"1e999",
        b"-",
        b"\x85",
        b"PK\x03\x04",
        b"PAR1",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
    ),
)
GOOD: dict[str, tuple[bytes, ...]] = {
    ".csv": (table().to_csv(index=False).encode(), table().to_csv(sep=";", decimal=",").encode()),
    ".tsv": (table().to_csv(sep="\t", index=False).encode(), conll("the/D dog/N", "a/D cat/N", "runs/V")),
    ".parquet": (
        parquet(table()),
        parquet(table().assign(t=pd.date_range("2024-01-01", periods=60), y=[True, False] * 30, x=None)),
    ),
    ".ts": (
        b"@problemName p\n@classLabel true a b\n@data\n"
        + b"".join(b"%d,2,3:4,5,6:%s\n" % (i, b"ab"[i % 2 :][:1]) for i in range(12)),
        b"# c\n@targetLabel true\n@data\n" + b"".join(b"1,?,%d:%d\n" % (i, i) for i in range(9)),
    ),
    ".npz": (
        npz(X=np.arange(60.0).reshape(10, 6), y=np.arange(10) % 2),
        npz(
            X=np.ones((6, 3, 4), dtype=">f4"),
            y=np.array(list("ababab")),
            lengths=np.array([1, 2, 3, 3, 2, 1], dtype=">i8"),
        ),
    ),
    ".conll": (
        conll("the/D dog/N", "a/D cat/N", "#tag/X runs/V", "it/P runs/V", "so/A"),
        b"# a b\nthe D\ndog N\n\n-DOCSTART- O\n\na D\n",
    ),
    ".conllu": (
        b"# s\n"
        + b"".join(b"%d\tw%d\tl\tNOUN\t_\t_\t0\tr\t_\t_\n%s" % (i, i, b"\n" * (i % 3 == 0)) for i in range(1, 16)),
    ),
    ".txt": (b"the quick brown fox jumps over the lazy dog\n" * 5, "é😀\r\n".encode() * 20),
}
FORMATS = list(GOOD)


@st.composite
def tables_of_cells(draw: st.DrawFn, delimiter: str) -> bytes:
    """A table whose columns each draw from a few odd cells; id, t and y mostly make sense."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    ids, times = np.arange(n) // draw(st.integers(1, 12)), np.arange(n) % draw(st.integers(1, 70))
    columns = {
        "id": [f"{i:03}" for i in ids],
        "t": times
        if draw(st.booleans())
        else [f"{day:%d.%m.%Y}" for day in pd.Timestamp("2024-01-20") + pd.to_timedelta(times, "D")],
        "y": draw(
            st.sampled_from(
                [ids % 2, rng.normal(size=n).round(2), rng.choice(["a", "None", "b"], n), rng.integers(0, 99, n)]
            )
        ),
    }
    for name in [*draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=True)), "x"]:
        few = draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4))
        odd = rng.random(n) < draw(st.sampled_from([0.1, 0.5, 1.0]))
        columns[name] = [
            few[rng.integers(len(few))] if is_odd else value
            for is_odd, value in zip(odd, columns.get(name, rng.normal(size=n)), strict=True)
        ]
    return pd.DataFrame(columns).to_csv(index=draw(st.booleans()), sep=delimiter).encode()


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Parquet of columns of many types."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    kinds: dict[str, Callable[[], object]] = {
        "id": lambda: rng.integers(0, 4, n).astype(draw(st.sampled_from(["int8", "uint64", "float32", "str"]))),
        "y": lambda: rng.choice(np.array([True, False, None], dtype=object), n),
        "x": lambda: np.where(rng.random(n) < 0.3, np.inf, rng.normal(size=n)),
        "t": lambda: pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 9, n), unit="h"),
        "word": lambda: rng.choice(np.array(CELLS, dtype=object), n),
        "wait": lambda: pd.to_timedelta(rng.integers(0, 9, n), unit="s"),
        "day": lambda: pd.Series(pd.date_range("2024-01-01", periods=n)).dt.date,
        "kind": lambda: pd.Categorical(rng.choice(["a", "b"], n)),
    }
    chosen = ["y", "id", "x", "t", *draw(st.lists(st.sampled_from(list(kinds)[4:]), unique=True))]
    return parquet(pd.DataFrame({name: kinds[name]() for name in chosen}))


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    """Archives of arrays of odd types and shapes."""
    n, t, c = draw(st.integers(0, 12)), draw(st.integers(0, 6)), draw(st.integers(0, 6))
    kind = draw(st.sampled_from([">f8", "<f4", ">i2", "u8", "?", "f2", "c8", "S3"]))
    x = np.zeros(draw(st.sampled_from([(n, t), (n, t), (n, t, c), (n, t, c), (n,)]))).astype(kind)
    y = np.arange(math.prod(shape := draw(st.sampled_from([(n,), (n,), (n, t)]))) or 0).reshape(shape)
    y = y.astype(draw(st.sampled_from([">i4", "f4", "U2", "?", "u8", "S2"])))
    extra = {"lengths": np.full(n, draw(st.integers(0, 7)), dtype=draw(st.sampled_from([">i8", "u1", "f4"])))}
    buffer = io.BytesIO()
    np.savez(buffer, X=x, y=y, **(extra if draw(st.booleans()) else {}))
    return buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn, suffix: str) -> bytes:
    """A good file with a few bytes changed, cut out, repeated or put in."""
    data = bytearray(draw(st.sampled_from(GOOD[suffix])))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 4]))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0 if data:
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case 3:
                data[at:at] = draw(st.sampled_from(TOKENS))
            case _:
                data[at:at] = draw(st.sampled_from(CELLS)).encode()
    return bytes(data)


MADE = {
    ".csv": (tables_of_cells(","), tables_of_cells(";")),
    ".tsv": (tables_of_cells("\t"),),
    ".parquet": (frames(),),
    ".npz": (arrays(),),
}


@st.composite
def files(draw: st.DrawFn, suffix: str) -> bytes:
    """Mostly a file made of odd parts where there are such of the format, else a damaged one; some are random bytes."""
    which = draw(st.integers(0, 19))
    if which == 0:
        return draw(st.binary(max_size=100))
    if which < 7 or suffix not in MADE:
        return draw(damaged(suffix))
    return draw(draw(st.sampled_from(MADE[suffix])))


@st.composite
def roles(draw: st.DrawFn, suffix: str) -> Roles:
    if suffix not in (".csv", ".tsv", ".parquet"):
        return Roles(channels_first=draw(st.booleans()), missing=draw(st.sampled_from([(), ("1",)])))
    return Roles(
        target=draw(st.sampled_from(["y", "y", "y", "x"])),
        sequence_id=draw(st.sampled_from([None, "id", "id", "id", ("id", "x"), ("id", "t")])),
        group=draw(st.sampled_from([None, None, None, None, "x", "id"])),
        time=draw(st.sampled_from([None, None, "t", "t"])),
        ignore=draw(st.sampled_from([(), (), ("x",)])),
        missing=draw(st.sampled_from([(), ("-200", "1.5"), ("tr",)])),
        wide=draw(st.sampled_from([False, False, False, True])),
    )


def check(data: bytes, suffix: str, chosen: Roles, kind: str, folder: Path) -> None:
    """A reading with a row per row of the file and what can be learned from it, or one sentence that names the file."""
    path = folder / f"a{suffix}"
    path.write_bytes(data)
    try:
        recording = read(locate(path), chosen)
        assert len(recording.frame) == len(recording.rows) > 0
        assert all("\n" not in remark for remark in recording.remarks)
        asked = question(recording, kind, 2 if kind == "forecasting" else None)
        prepare(recording, asked, parts(recording, asked)).splits(0)
    except BadInput as error:
        assert str(error).startswith(f"a{suffix}") and str(error).isprintable()


KINDS = ("auto", "auto", "forecasting", "tagging", "classification", "regression")
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=25, **QUIET)
@given(data=st.data())
def test_any_file_is_a_reading_or_a_sentence(suffix: str, data: st.DataObject, tmp_path_factory) -> None:
    folder = tmp_path_factory.getbasetemp()
    check(data.draw(files(suffix)), suffix, data.draw(roles(suffix)), data.draw(st.sampled_from(KINDS)), folder)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=400, **QUIET)
@given(data=st.data())
def test_any_of_hundreds_of_files_is_a_reading_or_a_sentence(
    suffix: str, data: st.DataObject, tmp_path_factory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    check(data.draw(files(suffix)), suffix, data.draw(roles(suffix)), data.draw(st.sampled_from(KINDS)), folder)
