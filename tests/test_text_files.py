"""Parsers of text: what they read, and that whatever they are given they either read it or say what is wrong, and where."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.tasks import text_files
from benchmarks.tasks.text_files import Inflection, Labelled, Tagged

CONLLU = """# sent_id = 1
# text = don't go
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\tnot\tPART\t_\t_\t3\tadvmod\t_\t_
3\tgo\tgo\tVERB\t_\t_\t0\troot\t_\t_
3.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_

# sent_id = 2
1\tStop\tstop\tVERB\t_\t_\t0\troot\t_\t_"""


def test_conllu_gives_words_and_their_universal_tags_alone() -> None:
    assert text_files.conllu(CONLLU.encode(), "x") == [
        Tagged(("do", "n't", "go"), ("AUX", "PART", "VERB")),
        Tagged(("Stop",), ("VERB",)),
    ]


def test_tagged_words_end_at_blank_lines_even_with_a_tab() -> None:
    data = b"New\tB-location\nYork\tI-location \n.\tO\n\t\nO\tO\n\n"
    assert text_files.words_with_tags(data, "x") == [
        Tagged(("New", "York", "."), ("B-location", "I-location", "O")),
        Tagged(("O",), ("O",)),
    ]


def test_labelled_texts_may_hold_commas_and_line_breaks() -> None:
    data = b'text,category\r\nhello,greet\r\n"one,\ntwo ""three""",count\r\n'
    assert text_files.labelled_texts(data, "x") == [Labelled("hello", "greet"), Labelled('one,\ntwo "three"', "count")]


def test_inflections_are_lemma_form_and_features() -> None:
    data = b"gehen\tging\tV;PST;3;SG\nab\tab an\tN\n"
    assert text_files.inflections(data, "x") == [
        Inflection("gehen", "ging", ("V", "PST", "3", "SG")),
        Inflection("ab", "ab an", ("N",)),
    ]


def test_lines_lose_their_blanks_and_empty_ones_are_left_out() -> None:
    assert text_files.lines("a \n\n b\r\nà".encode(), "x") == ["a", "b", "à"]
    assert text_files.lines(b"caf\xe9", "x", "latin-1") == ["café"]


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_a_file_comes_out_of_an_archive() -> None:
    assert text_files.archived(archive(a="1", b="2"), "x.zip", "b") == b"2"
    with pytest.raises(ValueError, match=r"x\.zip: no zip archive that holds c"):
        text_files.archived(archive(a="1"), "x.zip", "c")


@pytest.mark.parametrize(
    ("parse", "data", "message"),
    [
        (text_files.conllu, b"1\tword\n", "f, line 1: a token has 10 columns"),
        (text_files.conllu, CONLLU.replace("3.1", "x").encode(), "f, line 7: 'x' is no number of a token"),
        (text_files.words_with_tags, b"a\tO\nb\n", "f, line 2: expected a word, a tab"),
        (text_files.words_with_tags, b"a\tB-\n", "f, line 1: expected a word, a tab"),
        (text_files.words_with_tags, b"a\tB-x\nb\tI-y\n", "f, line 2: I-y follows no word of such an entity"),
        (text_files.words_with_tags, b"a\tB-x\n\nb\tI-x\n", "f, line 3: I-x follows no word of such an entity"),
        (text_files.labelled_texts, b"", "f, line 1: the columns should be text and category"),
        (text_files.labelled_texts, b"text,category\na,b,c\n", "f, line 2: expected a text and its category"),
        (text_files.labelled_texts, b'text,category\n"a\n', "f, line 2: "),
        (text_files.inflections, b"a\tb\tV\na\tb\n", "f, line 2: expected lemma, form and features"),
        (text_files.lines, b"a\n\xff\n", "f, line 2: not utf-8, byte 0xff"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(
    parse: Callable[[bytes, str], object], data: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse(data, "f")


PARSERS = [
    text_files.conllu,
    text_files.words_with_tags,
    text_files.labelled_texts,
    text_files.inflections,
    text_files.lines,
]
PIECES = [
    "\t",
    "\n",
    "\r",
    " ",
    ",",
    '"',
    ";",
    "#",
    "1",
    "1-2",
    "1.1",
    "_",
    "O",
    "B-x",
    "I-x",
    "text,category\n",
    "é",
    "\x00",
]


@settings(max_examples=200, deadline=None)
@given(
    parse=st.sampled_from(PARSERS),
    data=st.one_of(
        st.binary(max_size=60), st.lists(st.sampled_from(PIECES), max_size=40).map(lambda x: "".join(x).encode())
    ),
)
def test_anything_is_read_or_refused_in_a_sentence(parse: Callable[[bytes, str], list[object]], data: bytes) -> None:
    try:
        rows = parse(data, "some file")
    except ValueError as error:
        assert str(error).startswith("some file")
        assert type(error) is ValueError
    else:
        assert all(rows)


@settings(max_examples=300, deadline=None)
@given(start=st.integers(0, 150), n=st.integers(0, 20), junk=st.binary(max_size=5))
def test_a_broken_archive_is_refused_in_a_sentence(start: int, n: int, junk: bytes) -> None:
    whole = archive(a="hello " * 20)
    broken = whole[:start] + junk + whole[start + n :]
    try:
        text_files.archived(broken, "x.zip", "a")
    except ValueError as error:
        assert str(error).startswith("x.zip: no zip archive that holds a")
