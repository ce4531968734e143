"""What a result was made with: a digest of the code and the data files that can change it, and the environment it ran in."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import torch

from benchmarks import datasets
from benchmarks.machine import processor
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
    experiment, the notebook, and what says which data files the task reads. The registries are left out: adding a model makes
    no other model's results stale."""
    roots = [models.entry(model).build.__module__, tasks.BY_NAME[task].__module__, *SHARED_CODE]
    reached: set[str] = set()
    for root in roots:
        _reach(root, frozenset({"models", "benchmarks", root.split(".")[0]}), reached)
    made_by = b"".join(_content(_source(f"benchmarks.{name}")) for name in MADE_BY[mode])
    digest = hashlib.sha256(notebook(mode).read_bytes() + made_by)
    for name in sorted(reached):
        digest.update(name.encode() + b"\0" + _content(_source(name)))
    for line in _data(task, reached):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _data(task: str, reached: set[str]) -> Iterator[str]:
    """The hashes of the files that the task downloads; or, where packages carry its data, their versions."""
    names = tasks.BY_NAME[task].datasets
    for name in names:
        yield from (f"{row.name}/{row.file} {row.sha256}" for row in datasets.files(name).values())
    if not names and "benchmarks.tasks.bundled" in reached:
        yield from (f"{package} {version(package)}" for package in datasets.CARRIERS)


@cache
def _content(source: Path) -> bytes:
    """As `code_digest`, once per process: the models and tasks of a suite share most of their modules."""
    return source.read_bytes()


def _reach(module: str, packages: frozenset[str], reached: set[str]) -> None:
    """Adds ``module`` and, through its import statements, every module of ``packages`` that it needs."""
    if module in reached:
        return
    reached.add(module)
    for name in _imports(module, packages):
        _reach(name, packages, reached)


@cache
def _imports(module: str, packages: frozenset[str]) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(_source(module).read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), _package(module))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.split(".")[0] in packages and _is_module(name))


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
