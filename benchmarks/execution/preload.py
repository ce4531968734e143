"""What workers and the kernels that are their copies import, imported once by the fork server.

To import it anew costs about 8 s of a core; a copy costs milliseconds.
"""

# ruff: noqa: F401

import gc
import os
import signal
import warnings

from benchmarks.execution.lifeline import COORDINATOR, adopt_orphans, die_with_parent, name_process

# Ctrl-C reaches the whole process group; what it means is the coordinator's to say.
if COORDINATOR in os.environ:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By itself the fork server would notice only after the seconds that the imports take.
    die_with_parent(int(os.environ[COORDINATOR]))
    name_process("rnnb-server")
    # What a killed worker leaves is then a child of this process, where the coordinator finds it.
    adopt_orphans()
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
    gc.disable()  # to look through what imports make, which is never garbage, takes a quarter of their time

import benchmarks.execution.kernel_imports  # isort: skip  it says where figures go before anything imports matplotlib

import hmmlearn.hmm
import nbclient
import nbformat
import papermill
import torch._dynamo  # what the first optimiser would import, 2 s

import benchmarks.execution.capped_output
import benchmarks.execution.notebook_run
import benchmarks.experiment
import benchmarks.figures.trial_figures
from benchmarks import provenance

# What the first use would compile or look up: the schema and the versions.
nbformat.validate(nbformat.v4.new_notebook())
provenance.versions()
gc.freeze()  # the collector of a copy leaves alone, and so shares, what was made here
gc.enable()
