"""Files that `rnnbench compare` cannot use: name, content (None: no file), options, and what the one sentence says."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pandas as pd


def table(n_sequences: int = 10, n_steps: int = 6) -> pd.DataFrame:
    """A good table: x tells the class y of each sequence, tag and level are told step by step."""
    rng = np.random.default_rng(0)
    sequence = np.repeat(np.arange(n_sequences), n_steps)
    x = rng.normal(size=len(sequence)) + 3 * (sequence % 2)
    return pd.DataFrame(
        {
            "id": [f"s{i}" for i in sequence],
            "t": np.tile(np.arange(n_steps), n_sequences),
            "x": x.round(3),
            "colour": rng.choice(["red", "blue"], len(sequence)),
            "y": np.where(sequence % 2, "odd", "even"),
            "tag": np.where(x > 1.5, "high", "low"),
            "level": (2 * x + rng.normal(size=len(sequence))).round(3),
            "score": (sequence * 1.5).round(3),
        }
    )


def csv(change: Callable[[pd.DataFrame], object] | None = None) -> bytes:
    frame = table()
    if change is not None:
        change(frame)
    return frame.to_csv(index=False).encode()


def lines(change: Callable[[list[str]], object]) -> bytes:
    """The good table's lines, changed."""
    rows = csv().decode().splitlines()
    change(rows)
    return "\n".join(rows).encode()


def put(column: str, row: int, value: object) -> bytes:
    """The good table with another value in a row, counted from 1 as in messages."""

    def change(frame: pd.DataFrame) -> None:
        frame[column] = frame[column].astype(object)
        frame.loc[row - 1, column] = value

    return csv(change)


def copied(frame: pd.DataFrame) -> None:
    """Every sequence is the first over again, but for what it is to be called."""
    for column in ("x", "colour", "y", "tag", "level"):
        frame[column] = np.tile(frame[column].iloc[:6], 10)


def side_by_side(frame: pd.DataFrame) -> None:
    """Each time occurs twice in a sequence, once with each colour."""
    frame["t"] = frame["t"] // 2
    frame["colour"] = np.tile(["red", "blue"], 30)


def within(frame: pd.DataFrame, *names: str) -> None:
    """x says a split: the first name in the first half of each sequence, the second in the rest."""
    frame["x"] = np.where(frame["t"] < 3, *names)


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def conll(*sentences: str) -> bytes:
    return "\n\n".join("\n".join(token.replace("/", "\t") for token in words.split()) for words in sentences).encode()


TS = "@problemName p\n@univariate false\n@classLabel true a b\n@data\n"
CASES = "".join(f"{i},2,3:4,5,{i}:{'ab'[i % 2]}\n" for i in range(20))
X = np.arange(60.0).reshape(10, 6)
Y = ["--target", "y", "--sequence-id", "id"]
TAG = ["--target", "tag", "--sequence-id", "id"]
LEVEL = ["--target", "level", "--time", "t", "--sequence-id", "id"]

BAD: dict[str, tuple[str, bytes | None, list[str], str]] = {
    "no file": ("a.csv", None, Y, r"a\.csv: there is no such file"),
    "unknown ending": ("a.xlsx", b"x", Y, r"a\.xlsx: unknown format \.xlsx; known are \.csv"),
    "empty": ("a.csv", b" \n", Y, r"a\.csv: the file is empty"),
    "header alone": ("a.csv", b"id,x,y\n", Y, r"a\.csv: the table has a header and no rows"),
    "no header": ("a.csv", b"1,2\n3,4\n", Y, r"a\.csv, line 1: the first line holds numbers; it must name the columns"),
    "two of a name": ("a.csv", b"x,y,x\n1,2,3\n", Y, r"a\.csv, column x, line 1: two columns have this name"),
    "ragged": ("a.csv", lines(lambda x: x.insert(4, "1,2")), Y, r"a\.csv, line 5: 2 values, .* names 8 columns"),
    "ragged after blank lines": (
        "a.csv",
        b"\n\na,y\n1,2\n3\n",
        Y[:2],
        r"a\.csv, line 5: 1 values?, .* names 2 columns",
    ),
    "not UTF-8": ("a.csv", csv().replace(b"s3", b"\xff3", 1), Y, r"a\.csv, line 20: byte 0xff is not UTF-8"),
    "broken UTF-16": ("a.csv", csv().decode().encode("utf-16")[:-1], Y, r"begins like UTF-16 and is not; save"),
    "binary": ("a.csv", b"id,x,y\n1,\0,3\n", Y, r"a\.csv, line 2: a zero byte"),
    "no target named": ("a.csv", csv(), [], r"a\.csv: name the column to be predicted with --target; .* id, t, x"),
    "unknown target": ("a.csv", csv(), ["--target", "scoer"], r"a\.csv: --target: .* 'scoer'; did you mean 'score'\?"),
    "unknown sequence": (
        "a.csv",
        csv(),
        ["--target", "y", "--sequence-id", "ids"],
        r"--sequence-id: .* did you mean 'id'",
    ),
    "unknown time": ("a.csv", csv(), [*Y, "--time", "zeit"], r"a\.csv: --time: there is no column 'zeit'"),
    "unknown split": ("a.csv", csv(), [*Y, "--split", "zeit"], r"a\.csv: --split: there is no column 'zeit'"),
    "unknown ignore": ("a.csv", csv(), [*Y, "--ignore", "colours"], r"--ignore: .* did you mean 'colour'\?"),
    "one column twice": (
        "a.csv",
        csv(),
        ["--target", "id", "--sequence-id", "id"],
        r"column id: --target and --sequence-id",
    ),
    "empty target": ("a.csv", csv(lambda f: f.__setitem__("y", None)), Y, r"--target: the column is empty"),
    "one class": ("a.csv", csv(lambda f: f.__setitem__("y", "a")), Y, r"column y: the target is 'a' everywhere"),
    "class changes": (
        "a.csv",
        put("y", 9, "even"),
        [*Y, "--kind", "classification"],
        r"column y, row 9: the class changes",
    ),
    "class too rare": (
        "a.csv",
        csv(lambda f: f.__setitem__("y", np.where(f["id"] == "s4", "rare", f["y"]))),
        Y,
        "'rare' has 1",
    ),
    "no id in a row": ("a.csv", put("id", 7, None), Y, r"a\.csv, column id, row 7: a missing value"),
    "no time in a row": ("a.csv", put("t", 7, None), LEVEL, r"a\.csv, column t, row 7: a missing value"),
    "a time that is none": ("a.csv", put("t", 7, "soon"), LEVEL, r"column t, row 7: 'soon' is no time"),
    "an infinite time": ("a.csv", put("t", 7, "inf"), LEVEL, r"column t, row 7: the time inf is not finite"),
    "times of several": (
        "a.csv",
        csv(),
        ["--target", "level", "--time", "t"],
        r"column t, row 7: the same time as row 1; .*--sequ",
    ),
    "two series in one sequence": (
        "a.csv",
        csv(side_by_side),
        LEVEL,
        r"column t, row 2: 0 occurs twice in id s0, also in row 1; .* --sequence-id id --sequence-id colour",
    ),
    "a repeated hour": (
        "a.csv",
        b"t,y\n2021-10-31 01:00,1\n2021-10-31 02:00,2\n2021-10-31 02:00,3\n2021-10-31 03:00,4\n",
        ["--target", "y", "--time", "t", "--horizon", "1"],
        r"column t, row 3: 2021-10-31 02:00 occurs twice, also in row 2, .* daylight-saving time; write times in UTC",
    ),
    "month or day first": (
        "a.csv",
        b"t,y\n" + b"".join(b"1/%d/2023 0:00,%d\n" % (day, day) for day in range(1, 12)),
        ["--target", "y", "--time", "t", "--horizon", "1"],
        r"column t, row 1: '1/1/2023 0:00' is no time; write numbers, or dates like 2024-12-31 23:59",
    ),
    "an infinite target": (
        "a.csv",
        put("level", 3, "inf"),
        LEVEL,
        r"a\.csv, column level, row 3: the target is infinite",
    ),
    "text for a regression": (
        "a.csv",
        csv(),
        [*Y, "--kind", "regression"],
        r"column y, row 1: regression needs numbers, .* 'even'",
    ),
    "unknown kind": (
        "a.csv",
        csv(),
        [*Y, "--kind", "magic"],
        r"a\.csv: --kind 'magic' is unknown; known are auto, classif",
    ),
    "horizon of classes": (
        "a.csv",
        csv(),
        [*Y, "--kind", "tagging", "--horizon", "2"],
        r"--horizon is for forecasting",
    ),
    "horizon of none": ("a.csv", csv(), [*LEVEL, "--horizon", "0"], r"a\.csv: --horizon must be at least 1, got 0"),
    "horizon too long": ("a.csv", csv(), [*LEVEL, "--horizon", "40"], r"column level: a horizon of 40 is too long"),
    "too few sequences": (
        "a.csv",
        lines(lambda rows: rows.__delitem__(slice(19, None))),
        Y,
        r"3 different sequences; classification needs",
    ),
    "no sequences": (
        "a.csv",
        csv(),
        ["--target", "y", "--kind", "classification"],
        r"column y, row 7: .*\(the whole table\)",
    ),
    "copies": (
        "a.csv",
        csv(copied),
        ["--target", "score", "--sequence-id", "id"],
        r"column id: 1 different sequences; regression n",
    ),
    "unknown split's name": (
        "a.csv",
        csv(lambda f: within(f, "train", "tset")),
        [*Y, "--split", "x"],
        "column x, row 4: 'tset' is no split",
    ),
    "a sequence in two splits": (
        "a.csv",
        csv(lambda f: within(f, "train", "test")),
        [*Y, "--split", "x"],
        "column id, row 4: 's0' is in two splits",
    ),
    "no test": (
        "a.csv",
        csv(lambda f: f.__setitem__("x", "train")),
        [*Y, "--split", "x"],
        "column x: no row is in test",
    ),
    "a class never trained": (
        "a.csv",
        csv(lambda f: f.__setitem__("x", np.where(f["y"] == "odd", "train", "test"))),
        [*Y, "--split", "x"],
        "column y, row 1: class 'even' is never in train",
    ),
    "no minutes": ("a.csv", csv(), [*Y, "--minutes", "-1"], r"a\.csv: --minutes must be positive, got -1"),
    "too few minutes": (
        "a.csv",
        csv(),
        [*Y, "--minutes", "1", "--workers", "1"],
        r"--minutes 1 is too little for \d+ trials; give at le",
    ),
    "nobody can": (
        "a.csv",
        csv(),
        ["--target", "score", "--sequence-id", "id", "--models", "hmm"],
        r"none of hmm can do this",
    ),
    "broken Parquet": ("a.parquet", b"PAR1nonsense", Y, r"a\.parquet: no Parquet file that can be read"),
    "lists in Parquet": (
        "a.parquet",
        parquet(table().assign(x=[[1, 2]] * 60)),
        Y,
        r"a\.parquet, column x: values of the type list",
    ),
    ".ts without data": ("a.ts", b"@classLabel true a b\n", [], r"a\.ts: there is no line @data"),
    ".ts without an answer": (
        "a.ts",
        b"@classLabel false\n@data\n1,2:a\n",
        [],
        r"a\.ts: the header says neither @classLabel true nor",
    ),
    ".ts of an unknown class": (
        "a.ts",
        (TS + CASES + "1,2,3:4,5,6:c\n").encode(),
        [],
        r"a\.ts, line 25: class 'c' is none of @classLabel",
    ),
    ".ts of unequal channels": ("a.ts", (TS + "1,2:4,5,6:a\n").encode(), [], r"a\.ts, line 5: channels of 2, 3 steps"),
    ".ts of fewer channels": (
        "a.ts",
        (TS + CASES + "1,2,3:a\n").encode(),
        [],
        r"a\.ts, line 25: 1 channels?, where the first case has 2",
    ),
    ".ts with a word": ("a.ts", (TS + CASES + "1,x,3:4,5,6:a\n").encode(), [], r"a\.ts, line 25: 'x' is no number"),
    ".ts without a class": ("a.ts", (TS + CASES + "1,2,3:4,5,6:\n").encode(), [], r"a\.ts, line 25: class '' is none"),
    ".ts without cases": ("a.ts", TS.encode(), [], r"a\.ts: no case follows @data"),
    "no .npz": ("a.npz", b"PK\x03\x04nonsense", [], r"a\.npz: no \.npz file that can be read"),
    ".npz without y": ("a.npz", npz(X=X), [], r"a\.npz: there is no array y; the arrays are X"),
    ".npz with objects": (
        "a.npz",
        npz(X=X, y=np.array([{}] * 10)),
        [],
        r"a\.npz: an array of Python objects, which could run code",
    ),
    ".npz of text": ("a.npz", npz(X=X.astype(str), y=X[:, 0]), [], r"a\.npz: X must be numbers of shape"),
    ".npz of unequal size": (
        "a.npz",
        npz(X=X, y=X[:9, 0]),
        [],
        r"a\.npz: y must be .* of shape \(10,\) or \(10, 6\), not .* \(9,\)",
    ),
    ".npz of wrong lengths": (
        "a.npz",
        npz(X=X, y=X[:, 0], lengths=np.full(10, 7)),
        [],
        r"a\.npz: lengths\[0\] is 7, which is not in 1 … 6",
    ),
    "tags missing": ("a.conll", conll("the/D dog/N", "a/D cat"), [], r"a\.conll, line 5: 1 column, expected 2"),
    "a word missing": ("a.conll", conll("the/D dog/N", "a/D /N"), [], r"a\.conll, column 1, line 5: an empty column"),
    "spaces in CoNLL-U": (
        "a.conllu",
        b"# sent_id = 1\n" + b"    ".join([b"1", b"New York", b"y", b"PROPN", *[b"_"] * 6]) + b"\n",
        [],
        r"a\.conllu, line 2: 1 column, expected 10; the line uses spaces, and CoNLL-U needs tabs",
    ),
    "very many columns of tags": (
        "a.conll",
        b"\t".join([b"x"] * 100_000) + b"\n",
        [],
        r"a\.conll, line 1: 100,000 columns; at most 100 can be used",
    ),
    "not CoNLL-U": ("a.conllu", conll("the/D dog/N"), [], r"a\.conllu, line 1: 2 columns, expected 10"),
    "unknown tag column": (
        "a.conll",
        conll("the/D dog/N", "a/D cat/N"),
        ["--target", "3"],
        r"a\.conll: --target: there is no column '3'",
    ),
    "a short text": ("a.txt", b"ab", [], r"a\.txt"),
    "text of one letter": ("a.txt", b"aaaaaaaa", [], r"a\.txt, column character: the target is 'a' everywhere"),
}
