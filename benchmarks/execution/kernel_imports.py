"""What every kernel imports, before its notebook begins: about 6 s of a core in a new interpreter.

The fork server does so once for all of its copies. Nothing here may run a torch operation, start a thread, load a backend of
pyplot or touch a GPU: a fork does not survive those.
(The one thread there is belongs to the allocator of pyarrow, jemalloc, which knows how to fork.)
"""

# ruff: noqa: F401

import os

# Before matplotlib is imported: figures go into the notebook. The backend itself must first be loaded inside a kernel,
# where it finds the IPython that it hooks into.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a warning for users of debuggers
# Whether there is a GPU, which many a package asks when it is imported, is then asked of the driver's library alone: to ask
# CUDA itself would start it here, and no copy of a process in which it was started can use a GPU.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import pdb
import sqlite3

import ipykernel.debugger
import ipykernel.ipkernel
import ipykernel.kernelapp
import ipykernel.zmqshell
import IPython.core.completerlib
import IPython.core.debugger
import IPython.core.logger
import IPython.core.oinspect
import IPython.extensions.storemagic
import matplotlib.pyplot
import pandas
import torch
import tornado.platform.asyncio

import benchmarks.cost
import benchmarks.figures.cost_figures
import benchmarks.tasks.registry
import models.registry
from benchmarks.figures.drawing import drawing, head

# What the first use would read or look up: the fonts, the writers of pictures and tables.
figure, (axes,) = drawing("A title", 1, (3.0, 2.0), reading="what it shows")
head(axes, "a panel", "x", "y")
figure._repr_mimebundle_()
pandas.DataFrame({"a": [0.5]})._repr_html_()
