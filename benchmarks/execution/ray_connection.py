"""The connection to a Ray cluster: one that is there already, or one that is started on this machine for as long as a run."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants, services
from ray.exceptions import RayError

from benchmarks.execution.supervisor import ClusterError, cores

OBJECT_STORE_BYTES = 200_000_000
"""Shared memory of a cluster that is started here: for run folders on their way, a megabyte or so each."""

KNOCK_S = 10.0
"""How long a cluster's head may take to answer."""

SILENT: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """address: of the cluster's head, host:port; None: what RAY_ADDRESS says, or the cluster that was started on this machine,
    or else a new one, without a dashboard and out of reach for other machines, which ends with the context.

    Raises ClusterError where no cluster answers or none can be started.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            _connect(address)
        finally:
            for signum, handler in handlers.items():  # Ray puts its own in their place
                signal.signal(signum, handler)
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    try:
        found = services.canonicalize_bootstrap_address(address)  # type: ignore[arg-type]  # it takes None too
        if found is not None:
            _knock(found)
            ray.init(found, **SILENT)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        where = f"at {address}" if address else "that was started on this machine"
        raise ClusterError(
            f"the Ray cluster {where} cannot be used ({_line(error)}); start one with: ray start --head, and run this command "
            "on one of its machines"
        ) from error
    if found is None:
        _start()


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try for minutes, and then end the process."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=KNOCK_S).close()


def _start() -> None:
    """A cluster of this machine alone, for this process."""
    # On the loopback interface, as Ray does by itself where it takes a machine for somebody's desk.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init("local", num_cpus=cores(), include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **SILENT)
    except Exception as error:  # that is what Ray raises where one of its processes came up too late
        raise ClusterError(
            f"no Ray cluster can be started on this machine ({_line(error)}); where it is busy with other things, try again "
            "later, or run without --executor ray"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = True


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
