"""IPython kernels that have done their imports before papermill, unchanged, asks for one.

A kernel is a copy of a process that has imported everything, or a new interpreter that imports by itself. A fork is safe only
while a process has one thread and no sockets, and by the time papermill asks for a kernel a worker has both. So a worker makes
its kernel first thing (`WaitingKernel`); the kernel sleeps until papermill's kernel manager, through a provisioner
(jupyter_client 7, 2021: "kernel provisioning"), tells it where to listen. Sockets are files (``ipc``), not ports, so that no
two kernels can clash.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import multiprocessing
import os
import random
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerBase

from benchmarks.execution.fork_server import main_hidden
from benchmarks.execution.lifeline import die_with_parent, name_process
from benchmarks.execution.memory import preferred_victim

if TYPE_CHECKING:
    from benchmarks.trial import Mode, Trial

CAPPED = "--IPKernelApp.outstream_class=benchmarks.execution.capped_output.CappedStream"
"""The option by which a kernel of ours bounds what its notebook prints."""


class WaitingKernel:
    """A kernel process that sleeps until `start`. On Linux it dies with the process that made it, kill -9 included.

    forked: it is a copy of this process; else a new interpreter, which needs seconds for its imports. trial: what a new
    interpreter gets ready for.
    """

    def __init__(self, forked: bool, trial: Trial | None = None) -> None:
        self._orders, theirs = multiprocessing.Pipe()
        context: Any = multiprocessing.get_context("fork" if forked else "spawn")
        # Words, for a trial's class would be imported, with all that it needs, before the kernel can see to its imports.
        names = trial and (trial.task, trial.model, trial.mode)
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), forked, names), daemon=True)
        with main_hidden():
            self.process.start()
        theirs.close()
        self.started = False

    def wait_for_imports(self) -> None:
        """Returns once they are done, or the process is dead."""
        self._orders.poll(None)

    def start(self, arguments: list[str], folder: str) -> None:
        """arguments: ipykernel's command line. folder: the notebook's working directory. Raises RuntimeError for a dead one."""
        try:
            self._orders.send((arguments, folder))
        except BrokenPipeError:
            raise RuntimeError("it died before its notebook began") from None
        self.started = True

    def send(self, signum: int) -> None:
        """Signals the kernel; one that is dead already is left in peace."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, signum)

    def stop(self) -> None:
        """Kills the kernel and waits for its end: at the end of a notebook it has nothing left to save."""
        self.send(signal.SIGKILL)
        self.process.join()


class WaitingProvisioner(KernelProvisionerBase):
    """Hands a `WaitingKernel` to a kernel manager that expects to launch a command."""

    kernel: WaitingKernel

    @property
    def has_process(self) -> bool:
        return self.kernel.started

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        extra_arguments = kwargs.pop("extra_arguments", [])
        manager: AsyncKernelManager = self.parent  # type: ignore[assignment]
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        # Nobody's own IPython profile and start-up files: a trial depends on its spec alone.
        profile = f"--ipython-dir={Path(manager.connection_file).parent}"
        command = ["-f", manager.connection_file, profile, "--IPKernelApp.parent_handle=1", *extra_arguments]
        return await super().pre_launch(cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        self.kernel.start(cmd, str(kwargs.get("cwd") or Path.cwd()))
        return self.connection_info

    async def poll(self) -> int | None:
        return self.kernel.process.exitcode

    async def wait(self) -> int | None:
        while (exitcode := await self.poll()) is None:
            await asyncio.sleep(0.05)
        return exitcode

    async def send_signal(self, signum: int) -> None:
        self.kernel.send(signum)

    async def kill(self, restart: bool = False) -> None:
        self.kernel.send(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        self.kernel.send(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        """Nothing beyond the process is held."""


class PromptClient(AsyncKernelClient):
    """A client that takes a kernel for ready once it has heard it on both channels; jupyter_client's own then waits for 0.2 s
    of silence, which nbclient does not need: it knows a cell's messages by the request that they answer."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """timeout: seconds. Raises RuntimeError where the kernel is dead or silent."""
        started = time.monotonic()
        while True:
            self.kernel_info()
            try:
                reply = await self.shell_channel.get_msg(timeout=1)
                await self.iopub_channel.get_msg(timeout=0.2)
            except Empty:
                if not await self.is_alive():
                    raise RuntimeError("it died before it was ready") from None
                if timeout is not None and time.monotonic() - started > timeout:
                    raise RuntimeError(f"it said nothing for {timeout:g} s") from None
            else:
                self._handle_kernel_info_reply(reply)
                return


def manager_class(kernel: WaitingKernel, connection_file: Path) -> type[AsyncKernelManager]:
    """A kernel manager for papermill's ``kernel_manager_class``, or an instance of it for ``km``, whose kernel is then ours to
    end. connection_file: short, for a socket's path may have 107 bytes."""

    class Manager(AsyncKernelManager):
        def __init__(self, **settings: Any) -> None:
            sockets = {"transport": "ipc", "connection_file": str(connection_file)}
            super().__init__(client_factory=PromptClient, **sockets, **settings)
            # It names no command that runs, and to look it up takes 0.06 s.
            self._kernel_spec = KernelSpec(**get_kernel_dict())
            self.provisioner = WaitingProvisioner(kernel_spec=self._kernel_spec, parent=self)
            self.provisioner.kernel = kernel

    return Manager


def _serve(orders: Connection, parent: int, forked: bool, names: tuple[str, str, Mode] | None) -> None:
    """The life of a kernel: it does its imports, waits for its orders, then is an ordinary ipykernel."""
    name_process("rnnb-kernel")
    die_with_parent(parent)
    preferred_victim()
    if not forked:
        gc.disable()  # to look through what imports make, which is never garbage, takes a quarter of their time
        import benchmarks.execution.kernel_imports  # noqa: F401
        from benchmarks import provenance
        from models import registry

        if names is not None:
            task, model, mode = names
            # What fails here fails again where the notebook prepares the trial, and is then its row.
            with suppress(Exception):
                registry.entry(model).do_imports()
            # Of the code as it was read just now, and kept: files may change until its turn comes.
            provenance.code_digest(task, model, mode)
        gc.freeze()
        gc.enable()
    import numpy as np  # here, for a new interpreter to import them as fast as the rest
    import torch

    orders.send("ready")
    arguments, folder = orders.recv()
    os.chdir(folder)
    faulthandler.enable(os.fdopen(os.dup(2), "w"))  # ipykernel takes over fd 2; a crash report belongs in stderr.log
    torch.set_num_threads(1)
    # The experiment seeds what it draws. This is for a library that draws from a global generator behind its back.
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    IPKernelApp.launch_instance(arguments)
