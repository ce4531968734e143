"""What every trial imports, imported once by the fork server; workers and kernels start as its copies.

Importing torch, seaborn and IPython anew costs about 5 s of a core, and papermill 3 s; a copy costs milliseconds.
Nothing here may run a torch operation, start a thread, load a backend of pyplot or touch a GPU: a fork does not survive those.
(The one thread there is belongs to the allocator of pyarrow, jemalloc, which knows how to fork.)
"""

# ruff: noqa: F401

import gc
import os
import signal

from benchmarks.execution.lifeline import COORDINATOR, die_with_parent

# Ctrl-C reaches the whole process group; what it means is the coordinator's to say.
if COORDINATOR in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By itself the fork server would notice only after the seconds that the imports take.
    die_with_parent(int(os.environ[COORDINATOR]))

# Before matplotlib is imported: figures go into the notebook. The backend itself must first be loaded inside a kernel,
# where it finds the IPython that it hooks into.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a warning for users of debuggers
# Whether there is a GPU, which many a package asks when it is imported, is then asked of the driver's library alone: to ask
# CUDA itself would start it here, and no copy of a process in which it was started can use a GPU.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import pdb
import sqlite3

import hmmlearn.hmm
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
import nbclient
import nbformat
import pandas
import papermill
import seaborn
import torch
import torch._dynamo  # what the first optimiser would import, 3 s
import tornado.platform.asyncio

import benchmarks.cost
import benchmarks.execution.capped_output
import benchmarks.execution.notebook_run
import benchmarks.experiment
import benchmarks.figures.cost_figures
import benchmarks.figures.trial_figures
import benchmarks.tasks.registry
import models.registry
from benchmarks import provenance
from benchmarks.figures.drawing import drawing, head

# What the first use would compile, read or look up: the schema, the versions, the fonts, the writers of pictures and tables.
nbformat.validate(nbformat.v4.new_notebook())
provenance.versions()
figure, (axes,) = drawing("A title", 1, (3.0, 2.0), reading="what it shows")
head(axes, "a panel", "x", "y")
figure._repr_mimebundle_()
pandas.DataFrame({"a": [0.5]})._repr_html_()
gc.freeze()  # the collector of a copy leaves alone, and so shares, what was made here
