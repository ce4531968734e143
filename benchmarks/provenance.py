"""What a result was made with: a digest of the code and the data files that can change it, and the environment it ran in."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import torch

from benchmarks import datasets
from benchmarks.machine import processor
from benchmarks.syntax import Code, read
from benchmarks.tasks import registry as tasks
from models import registry as models

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {"quality": "trial.ipynb", "tuning": "tuning.ipynb", "timing": "profile.ipynb"}
"""What a trial of each mode executes."""
MADE_BY = {
    "quality": ("experiment",),
    "tuning": ("experiment",),
    "timing": ("cost", "timing", "noise", "flops", "profiling", "example_batch"),
}
"""The modules of `benchmarks` that each notebook walks through: they import all models and tasks, and count by themselves."""
SHARED_CODE = ("benchmarks.fitting", "benchmarks.evaluation", "benchmarks.metrics", "models.sizing", "models.predictor")
PACKAGES = (
    "torch",
    "numpy",
    "hmmlearn",
    "aeon",
    "scikit-learn",
    "statsmodels",
    "pandas",
    "mlflow",
    "papermill",
    "rnnbench",
)


version = cache(metadata.version)
"""Of a package, looked up once: to find it reads a file of the package's, and a suite asks for hundreds."""


def notebook(mode: str) -> Path:
    """The notebook that trials of a mode execute."""
    return ROOT / "notebooks" / NOTEBOOKS[mode]


@cache
def code_digest(task: str, model: str, mode: str = "quality") -> str:
    """sha256 over the model's and the task's modules with what they import from the project, the fit and evaluation, the
    experiment, the code cells of the notebook, and what says which data files the task reads.

    The registries are left out: adding a model makes no other model's results stale. Of a file only what can change a result
    counts, see `benchmarks.syntax`.
    """
    roots = [models.entry(model).build.__module__, tasks.BY_NAME[task].__module__, *SHARED_CODE]
    packages = frozenset({"models", "benchmarks", *(root.split(".")[0] for root in roots)})
    reached: set[str] = set()
    for root in roots:
        _reach(root, packages, reached)
    also = [f"benchmarks.{name}" for name in MADE_BY[mode]]
    files = {name: _code(name, packages) for name in (*reached, *also)} | {"": _notebook_code(mode)}
    return hashlib.sha256("\n".join([*digests(files), *_data(task, reached)]).encode()).hexdigest()


def digests(files: Mapping[str, Code]) -> list[str]:
    """A line for each file that does something, in an order that does not depend on the files' names. files: module → code. A
    line also has the digests of the modules that the file uses: to import the same name from another module is a change."""
    lines = {
        " ".join([code.digest, *(files[name].digest for name in code.uses if name in files)])
        for code in files.values()
        if code.digest
    }
    return sorted(lines)


def _data(task: str, reached: set[str]) -> Iterator[str]:
    """The hashes of the files that the task downloads; or, where packages carry its data, their versions."""
    names = tasks.BY_NAME[task].datasets
    for name in names:
        yield from (f"{row.name}/{row.file} {row.sha256}" for row in datasets.files(name).values())
    if not names and "benchmarks.tasks.bundled" in reached:
        yield from (f"{package} {version(package)}" for package in datasets.CARRIERS)


def _reach(module: str, packages: frozenset[str], reached: set[str]) -> None:
    """Adds ``module`` and, through its import statements, every module of ``packages`` that it needs."""
    if module in reached:
        return
    reached.add(module)
    for name in _code(module, packages).imports:
        _reach(name, packages, reached)


@cache
def _code(module: str, packages: frozenset[str]) -> Code:
    """Read once per process: the models and tasks of a suite share most of their modules."""
    return read(_source(module).read_bytes(), _package(module), lambda name: _is_in(name, packages))


@cache
def _notebook_code(mode: str) -> Code:
    cells = json.loads(notebook(mode).read_bytes())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return read(source, "", lambda name: _is_in(name, frozenset({"models", "benchmarks"})))


def _is_in(name: str, packages: frozenset[str]) -> bool:
    """Whether a name is that of a module in one of the packages."""
    return name.split(".")[0] in packages and _is_module(name)


@cache
def _is_module(name: str) -> bool:
    """ "package.module.attribute" is an attribute, not a module."""
    return _spec(name) is not None


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, found without importing what it lies in, as `importlib.util.find_spec` does: that takes seconds."""
    if name in sys.modules:
        return sys.modules[name].__spec__
    package = name.rpartition(".")[0]
    if not package:
        return importlib.util.find_spec(name)
    parent = _spec(package)
    if parent is None or parent.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(name, parent.submodule_search_locations)


def _package(module: str) -> str:
    """The package that relative imports in a module start from."""
    is_package = _source(module).name == "__init__.py"
    return module if is_package else module.rpartition(".")[0]


def _source(module: str) -> Path:
    spec = _spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"no source file for module {module!r}")
    return Path(spec.origin)


@cache
def versions() -> dict[str, str]:
    """Of each of `PACKAGES`."""
    return {name: version(name) for name in PACKAGES}


def environment() -> dict[str, str | int | bool | None]:
    """Versions, commit and machine, for env.json and the report."""
    return {
        "python": platform.python_version(),
        **{f"version_{name}": number for name, number in versions().items()},
        "git_commit": git_commit(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@cache
def git_commit() -> str | None:
    """The commit of the checkout, with ``+changes`` where the working tree differs; None outside a repository."""
    try:
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
