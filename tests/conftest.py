"""One thread, as in a trial: the same bits, and no fight over the cores. And the model that goes wrong, for who asks for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import registry

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The model of faulty.py, registered as any package elsewhere would register one; workers inherit sys.path."""
    import faulty  # the whole harness, which most tests do without

    folder = tmp_path_factory.mktemp("plugin")
    faulty.install_plugin(folder)
    sys.path.insert(0, str(folder))
    registry.entries.cache_clear()
    yield folder
    sys.path.remove(str(folder))
    registry.entries.cache_clear()


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The least notebook that can run it."""
    import faulty

    return faulty.write_notebook(tmp_path_factory.mktemp("notebook") / "trial.ipynb")
