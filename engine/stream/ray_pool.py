"""Workers on a Ray cluster: jobs in, what became of them out."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

from lithostream.engine.config import RunSettings
from lithostream.engine.errors import BackendError
from lithostream.engine.machine import usable_cores
from lithostream.engine.stream.ray_worker import Order, SectionWorker

ADDRESS = "RAY_ADDRESS"  # Ray's own convention
OBJECT_STORE_BYTES = 200 << 20  # of a Ray of our own: only what is said of sections goes through it

# Hands an order's jobs to workers and yields what becomes of them, as `Made.to_json`; of lost workers, nothing.
Pool = Callable[[Order], Generator[str, None, None]]


def workers(
    resources: Mapping[str, float], settings: RunSettings, sections: int
) -> tuple[int, dict[str, float]]:
    """Say how many workers a cluster takes, and what Ray must set aside for each.

    A worker has a processor for each thread, and a GPU to itself where the backend uses one: Ray hides GPUs from
    workers that ask for none.
    """
    room = int(resources.get("CPU", 0)) // settings.threads
    each = {"num_cpus": float(settings.threads)}
    gpus = int(resources.get("GPU", 0))
    if settings.backend in ("onnxruntime-cuda", "tensorrt") or (settings.backend == "auto" and gpus):
        room, each["num_gpus"] = min(room, gpus), 1.0
    return max(1, min(room, sections)), each


def made_on_ray(settings: RunSettings, order: Order) -> Generator[str, None, None]:
    """Run an order's jobs on the cluster of the environment's RAY_ADDRESS, or on a Ray started for them.

    A worker that dies is started again, and its job is left out: Ray itself would try it on the same worker alone, and
    wait for that where its machine is gone. Every order is a connection of its own, so that no worker outlives it.

    Yields
    ------
    str
        `Made.to_json`, in any order.

    Raises
    ------
    BackendError
        Ray is not installed, or not there.
    """
    ray = import_ray()
    # Ray prints the deaths of workers to standard output, which is for events or the summary.
    with redirect_stdout(sys.stderr):
        _connect(ray, settings)
        try:
            yield from _answers(ray, settings, order)
        finally:
            ray.shutdown()


def _connect(ray: Any, settings: RunSettings) -> None:
    address, stop = os.environ.get(ADDRESS), signal.getsignal(signal.SIGTERM)
    own = {"num_cpus": max(settings.threads, usable_cores()), "object_store_memory": OBJECT_STORE_BYTES}
    options = {} if address else {**own, "include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="warning", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BackendError(
            f"no Ray at {address or 'this machine'}: {error}",
            fix=f"start one with `ray start --head`, or unset {ADDRESS}",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)  # Ray put its own in place of how this program ends


def _answers(ray: Any, settings: RunSettings, order: Order) -> Iterator[str]:
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # a lost section is no end; the caller counts what came back
    context.enable_progress_bars = False
    size, each = workers(ray.cluster_resources(), settings, len(order.jobs))
    rows = ray.data.from_items(
        [{"job": place} for place in range(len(order.jobs))], override_num_blocks=len(order.jobs)
    )
    made = rows.map(
        SectionWorker,
        fn_constructor_args=(order,),
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": 0},
        **each,
    )
    try:
        for row in made.iter_rows():
            yield row["made"]
    except ray.exceptions.RayError as error:
        print(f"Ray: {error}", file=sys.stderr)


def import_ray() -> Any:
    """Return Ray with Ray Data.

    Raises
    ------
    BackendError
        It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody of itself
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise BackendError(
            f"--on ray needs {error.name}, which is not installed", fix="pip install 'lithostream[ray]'"
        ) from error
    return ray
