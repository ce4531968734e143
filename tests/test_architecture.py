"""Who may import what, what notebooks may hold, and that the documents describe the tree as it is."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("models/**/*.py"), *ROOT.glob("benchmarks/**/*.py")])
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


def imported(path):
    """Full names of everything a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def importers(package):
    return {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(name == package or name.startswith(package + ".") for name in imported(path))
    }


def test_models_know_nothing_of_the_harness():
    assert not [path for path in importers("benchmarks") if path.startswith("models/")]


def test_tasks_know_no_model():
    tasks = {path for path in SOURCES if "tasks" in path.parts}
    allowed = ("models.sequences", "models.names")
    for path in tasks:
        assert not [n for n in imported(path) if n.startswith("models") and not n.startswith(allowed)], path


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("mlflow", {"benchmarks/tracking.py"}),
        ("papermill", {"benchmarks/execution/", "benchmarks/report.py"}),
        ("optuna", {"benchmarks/tuning.py"}),
        ("ray", {"benchmarks/execution/"}),
        ("hmmlearn", {"models/", "benchmarks/execution/preload.py"}),
    ],
)
def test_a_heavy_dependency_is_imported_in_its_own_place(package, homes):
    found = importers(package)
    assert found
    assert all(any(path.startswith(home) for home in homes) for path in found), found


def test_models_are_named_nowhere_in_the_harness():
    names = {"lstm", "gru", "bilstm", "hmm", "tcn", "transformer"}
    for path in SOURCES:
        if path.parts[len(ROOT.parts)] != "benchmarks":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not constants & names, f"{path}:{node.lineno} compares with a model's name"


UNPICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SAFE = {
    ("numpy", "load"): ("allow_pickle", "False"),
    ("np", "load"): ("allow_pickle", "False"),
    ("torch", "load"): ("weights_only", "True"),
    ("yaml", "load"): ("Loader", "yaml.SafeLoader"),
}
"""How a loader that could run code must be called."""


def loaders(source):
    """What in a piece of code could run code that a file brings along."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in UNPICKLES or tuple(name.split(".")) in SAFE)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = SAFE.get(tuple(called.split(".")))
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if safe is not None and given.get(safe[0]) != safe[1]:
                yield f"{called} without {safe[0]}={safe[1]}"
            if called in ("eval", "exec") or called.split(".")[-1] in ("read_pickle", "unsafe_load", "full_load"):
                yield called


@pytest.mark.parametrize(
    "source",
    [
        *(
            "import pickle",
            "from joblib import load",
            "import torch\ntorch.load(f)",
            "torch.load(f, weights_only=False)",
        ),
        *("np.load(f)", "np.load(f, allow_pickle=True)", "from numpy import load", "pd.read_pickle(f)", "eval(x)"),
        *("yaml.load(f, yaml.Loader)", "yaml.unsafe_load(f)", "import shelve"),
    ],
)
def test_what_could_run_code_from_a_file_is_found(source):
    assert list(loaders(source))


def test_nothing_is_unpickled_anywhere():
    for path in SOURCES:
        assert not list(loaders(path.read_text())), path
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        for cell in (cell for cell in cells if cell["cell_type"] == "code"):
            assert not list(loaders("".join(cell["source"]))), path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_thin_and_committed_without_outputs(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert any("parameters" in cell["metadata"].get("tags", []) for cell in code)
    for cell in code:
        source = "".join(cell["source"])
        assert not cell["outputs"] and cell["execution_count"] is None
        assert not re.search(r"^\s*(def|class) |^\s*!|/home/|/root/", source, re.MULTILINE), source


def test_the_tree_in_the_readme_is_the_tree():
    block = re.search(r"```\n(models/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    folder, named = "", set()
    for line in block.splitlines():
        name = line.split()[0] if line.strip() else ""
        if line and not line.startswith(" "):
            folder = name
        named.add(name if name == folder else folder + name)
    for name in named:
        assert (ROOT / name).exists(), name
    for path in [*ROOT.glob("models/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("notebooks/*.ipynb")]:
        relative = str(path.relative_to(ROOT))
        assert relative in named or path.name == "__init__.py", f"{relative} is missing from the README's tree"


def test_no_document_or_source_file_holds_a_path_of_some_machine():
    for path in [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("tests/*.py"), ROOT / "Makefile"]:
        if path.name != "test_architecture.py":
            assert not re.search(r"/work/|/root/|\.\./shared", path.read_text()), path


def test_no_document_has_a_gap_left_to_fill():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("results/*.md"), *ROOT.glob("benchmarks/suites/*.yaml")]:
        assert not re.search(r"^[A-Z_]{6,}$|TIME_|TODO|FIXME", path.read_text(), re.MULTILINE), path
