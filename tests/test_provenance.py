"""The digest of the code behind a result: what changes it and what does not, on small packages and on the project itself."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import provenance
from benchmarks.syntax import read
from models import registry

FILES = {
    "__init__.py": '"""A package."""\n',
    "start.py": (
        '"""The module to start from."""\n'
        "import math\n"
        "from {package} import helper, second as other\n"
        "from {package}.third import scale\n"
        "from .third import RATE as rate\n"
        "import {package}.second\n"
        "import {package}.helper as h\n\n\n"
        "def run(x, n=3):\n"
        '    """What it does."""\n'
        "    # why it does so\n"
        "    y = helper.double(x) + math.sqrt(n) * other.ONE + {package}.second.ONE\n"
        '    return scale(y) * rate + h.double(1), f"kept {{x!r:>5}}"\n'
    ),
    "helper.py": "def double(x):\n    return 2 * x\n",
    "second.py": 'ONE = 1\n"""Of one."""\n',
    "third.py": "RATE = 0.5\n\n\ndef scale(x):\n    return x / 3\n",
}
"""A small package whose modules use each other in every way there is."""
NAMES = (f"little_package_{n}" for n in itertools.count())


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes files as a new package, and gives the lines of its code's digest; edits: text → what stands in its place."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(
        edits: Mapping[str, str] | None = None, start: str = "start", files: Mapping[str, str] | None = None
    ) -> list[str]:
        package = next(NAMES)
        for name, text in (files or FILES).items():
            for old, new in (edits or {}).items():
                text = text.replace(old, new)
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{package}", package).replace("{{", "{").replace("}}", "}"))
        packages, reached = frozenset({package}), set[str]()
        provenance._reach(f"{package}.{start}", packages, reached)
        return provenance.digests({name: provenance._code(name, packages) for name in reached})

    yield made
    provenance._is_module.cache_clear()


@pytest.mark.parametrize(
    "edits",
    [
        {"# why it does so": "# for another reason"},
        {"    # why it does so\n": ""},
        {'"""What it does."""': '"""What it is said to do."""'},
        {'    """What it does."""\n': ""},
        {'"""The module to start from."""\n': ""},
        {'"""Of one."""': '"""The number one."""'},
        {"2 * x": "(2*x)"},
        {"(x, n=3)": "(\n    x,\n    n=3,\n)"},
        {"ONE = 1": "ONE = 0x1"},
        {'f"kept {{x!r:>5}}"': "f'kept {{x!r:>5}}'"},
    ],
)
def test_comments_docstrings_and_formatting_do_not_change_the_digest(digest: Any, edits: dict[str, str]) -> None:
    assert any(old in text for old in edits for text in FILES.values())
    assert digest(edits) == digest()


@pytest.mark.parametrize(
    "edits",
    [
        {"2 * x": "3 * x"},
        {"2 * x": "2.0 * x"},
        {"2 * x": "2 + x"},
        {"n=3": "n=4"},
        {"n=3": "n=None"},
        {"RATE = 0.5": "RATE = 0.25"},
        {"RATE = 0.5": 'RATE = "0.5"'},
        {"!r:>5": "!r:>6"},
        {"!r:>5": "!s:>5"},
        {'f"kept': 'f"left'},
        {"x / 3": "x // 3"},
        {"math.sqrt": "math.cbrt"},
        {"* other.ONE": "* h.ONE"},
        {"helper.double(x)": "other.double(x)"},
        {"import RATE as rate": "import scale as rate"},
        {"return scale(y)": "return abs(y)"},
        {"import math": "import cmath as math"},
        {"    return x / 3": "    return x / 3\n\n\ndef unused(x):\n    return x"},
    ],
)
def test_a_changed_constant_operator_default_or_name_changes_the_digest(digest: Any, edits: dict[str, str]) -> None:
    assert any(old in text for old in edits for text in FILES.values())
    assert digest(edits) != digest()


def test_every_constant_of_a_package_counts(digest: Any) -> None:
    unchanged = digest()
    for name, text in FILES.items():
        for match in re.finditer(r"(?<![\w.])\d+", text):
            changed = text[: match.start()] + str(int(match[0]) + 1) + text[match.end() :]
            assert digest(files={**FILES, name: changed}) != unchanged, (name, match)


def test_a_renamed_module_does_not_change_the_digest(digest: Any) -> None:
    names = {"helper": "zeta", "second": "alpha", "third": "middle"}

    def renamed(text: str) -> str:
        for old, new in names.items():
            text = re.sub(rf"\b{old}\b", new, text)
        return text

    assert digest(files={renamed(name): renamed(text) for name, text in FILES.items()}) == digest()


def test_another_name_for_an_imported_module_and_another_order_of_imports_do_not_change_the_digest(digest: Any) -> None:
    start = FILES["start.py"].replace("second as other", "second").replace("other.ONE", "second.ONE")
    lines = start.splitlines(keepends=True)
    lines[2:7] = reversed(lines[2:7])
    assert digest(files={**FILES, "start.py": "".join(lines)}) == digest()


def test_a_module_moved_into_a_package_does_not_change_the_digest(digest: Any) -> None:
    start = (
        FILES["start.py"]
        .replace("import helper, second", "import second")
        .replace("{package}.third", "{package}.inner.third")
        .replace(".third", ".inner.third")
        .replace("inner.inner", "inner")
        .replace("import {package}.helper as h", "from {package}.inner import helper\nfrom .inner import helper as h")
    )
    moved = {f"inner/{name}" if name in ("helper.py", "third.py") else name: text for name, text in FILES.items()}
    assert digest(files={**moved, "start.py": start, "inner/__init__.py": '"""Moved here."""\n'}) == digest()


def test_the_same_name_from_another_module_changes_the_digest(digest: Any) -> None:
    files = {**FILES, "third.py": FILES["third.py"] + "\n\nfrom {package} import fourth as _\n"}
    files["fourth.py"] = "RATE = 0.5\n\n\ndef scale(x):\n    return x / 4\n"
    elsewhere = FILES["start.py"].replace("{package}.third", "{package}.fourth")
    assert digest(files={**files, "start.py": elsewhere}) != digest(files=files)


def test_modules_that_exchange_their_places_change_the_digest(digest: Any) -> None:
    assert digest({"* other.ONE": "* h.ONE", "h.double(1)": "other.double(1)"}) != digest()


def cells(*sources: tuple[str, str]) -> str:
    return json.dumps(
        {"cells": [{"cell_type": kind, "source": [text], "metadata": {}, "outputs": []} for kind, text in sources]}
    )


def test_of_a_notebook_the_code_cells_alone_change_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trial.ipynb"
    monkeypatch.setattr(provenance, "notebook", lambda mode: path)

    def digest_of(content: str) -> str:
        path.write_text(content)
        provenance._notebook_code.cache_clear()
        provenance.code_digest.cache_clear()
        return provenance.code_digest("adding", "lstm")

    try:
        code = ("code", "n = 3  # a parameter\n")
        before = digest_of(cells(("markdown", "# A title"), code, ("code", "print(n)")))
        assert digest_of(cells(("markdown", "# Another"), ("markdown", "text"), code, ("code", "print(n)"))) == before
        assert digest_of(cells(("code", "n = 3\n"), ("code", "print(n)"))) == before
        with_output = json.loads(cells(code, ("code", "print(n)")))
        with_output["cells"][1] |= {"outputs": [{"text": "3"}], "metadata": {"tags": ["x"]}, "execution_count": 7}
        assert digest_of(json.dumps(with_output | {"metadata": {"kernelspec": {"name": "other"}}})) == before
        assert digest_of(cells(("code", "n = 4\n"), ("code", "print(n)"))) != before
        assert digest_of(cells(code, ("code", "print(n + 1)"))) != before
    finally:
        monkeypatch.undo()
        provenance._notebook_code.cache_clear()
        provenance.code_digest.cache_clear()


def test_a_bare_string_does_nothing_and_any_other_string_counts() -> None:
    def digest_of(text: str) -> str:
        return read(text, "", lambda name: False).digest

    assert digest_of('x = 1\n"text"\n') == digest_of("x = 1\n") != digest_of('x = "1"\n')
    assert digest_of('"""Only words."""') == digest_of("# only words") == digest_of("") == ""
    assert digest_of("f('a')") != digest_of("f('b')")
    assert digest_of("f(1)") != digest_of("f(True)") != digest_of("f(1.0)") != digest_of("f(None)")


EVERY_KIND = '''"""Text."""
from __future__ import annotations
import math
from benchmarks import fitting
from benchmarks.metrics import Metric as M


@property
async def f(x: int, /, *y, z=(1, 2.5, None, ..., b"a", "ä", True, 3j), **w) -> str:
    """Text."""
    async with x as y, z:
        yield f"{x!r:>{w}}" f"{{{y}}} {z=}" "end"
    match x:
        case [1, *rest] | {"a": str()} if rest:
            return fitting.fit(lambda n=-1: [n for n in x if n] if False else M[1:2, ...])


type_ = {**w, "a": 2} if (n := 2) else not x[-1] @ 3
'''


def test_versions_of_python_agree_on_the_digest() -> None:
    """By a digest that 3.11, 3.12 and 3.13 gave alike: their syntax trees differ in f-strings and in empty fields."""
    code = read(EVERY_KIND, "", {"benchmarks", "benchmarks.fitting", "benchmarks.metrics"}.__contains__)
    assert code.digest == "d76ad40f1b6df6edcf7e1c346f7aa79313e2e9047b68c6be849e4e69360b8e02"
    assert code.uses == ("benchmarks.fitting", "benchmarks.metrics")


def test_a_plug_in_s_own_modules_count_whatever_they_say_in_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def digest_of(helper: str) -> str:
        package = next(NAMES)
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f'"""The package {package}."""\n')
        (tmp_path / package / "helper.py").write_text(helper)
        source = (
            f"from {package}.helper import RATE\nfrom models.floors import *\n\n\ndef build(*_):\n    return RATE\n"
        )
        (tmp_path / package / "model.py").write_text(source)
        build = importlib.import_module(f"{package}.model").build
        entry = replace(registry.entry("lstm"), name=package, build=build)
        monkeypatch.setattr(registry, "ENTRIES", [*registry.ENTRIES, entry])
        registry.entries.cache_clear()
        return provenance.code_digest("adding", package)

    before = digest_of("RATE = 0.5\n")
    assert digest_of('"""Of the model."""\n\nRATE = 0.5  # by hand\n') == before != digest_of("RATE = 0.25\n")
    monkeypatch.undo()
    registry.entries.cache_clear()


PAIRS = (("adding", "lstm", "quality"), ("co2", "hmm", "tuning"), ("japanese_vowels", "fcn", "timing"))
PRINT = f"from benchmarks import provenance; print([provenance.code_digest(*pair) for pair in {PAIRS!r}])"


def digests_in(root: Path) -> str:
    command = [sys.executable, "-c", PRINT]
    return subprocess.run(
        command, cwd=root, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project, to be edited."""
    for name in ("benchmarks", "models", "notebooks"):
        shutil.copytree(provenance.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def substitute(root: Path, pattern: str, replacement: str) -> None:
    """In every module and notebook."""
    for path in (*root.rglob("*.py"), *root.rglob("*.ipynb")):
        path.write_text(re.sub(pattern, replacement, path.read_text()))


def test_in_the_project_itself_comments_and_a_renamed_module_change_no_digest_and_a_constant_does(copy: Path) -> None:
    here = [provenance.code_digest(*pair) for pair in PAIRS]
    for path in copy.rglob("*.py"):
        path.write_text(f"# Reviewed.\n{path.read_text()}\n# The end.\n")
    registry = copy / "models" / "registry.py"
    registry.write_text(registry.read_text() + "ADDED = 1\n")  # as a new model is
    (copy / "benchmarks" / "fitting.py").rename(copy / "benchmarks" / "a_loop.py")
    substitute(copy, r"\bbenchmarks\.fitting\b", "benchmarks.a_loop")
    substitute(copy, r"(from benchmarks import [^\n]*)\bfitting\b", r"\1a_loop")
    substitute(copy, r"\bfitting\.(?=[a-z])", "a_loop.")
    assert "a_loop" in (copy / "benchmarks" / "experiment.py").read_text()
    assert digests_in(copy) == str(here)
    predictor = copy / "models" / "predictor.py"
    predictor.write_text(predictor.read_text() + "ADDED = 1\n")
    changed = digests_in(copy)
    assert not any(digest in changed for digest in here)
