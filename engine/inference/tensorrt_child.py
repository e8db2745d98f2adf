"""Build a TensorRT plan in a process of its own: a builder that crashes or runs out of memory takes no run along.

Parent and child speak over one pipe: JSON for orders, progress and errors, bare bytes for graph, timings and plan.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from typing import Any

from lithostream.engine.errors import BackendError, BackendMemoryError, StoppedError
from lithostream.engine.inference.plan_cache import Progress
from lithostream.engine.inference.tensorrt_plan import build_plan


def build_apart(
    model: bytes,
    *,
    device: int,
    tile: tuple[int, int, int],
    batch: int,
    workspace: int,
    threads: int,
    timing: bytes,
    progress: Progress,
) -> tuple[bytes, bytes]:
    """Compile a graph for one GPU, its number on this machine, as `build_plan` does, in a child process.

    Raises
    ------
    BackendError, BackendMemoryError
        With what TensorRT said, or how the child ended.
    """
    order = {"device": device, "tile": tile, "batch": batch, "workspace": workspace, "threads": threads}
    ours, theirs = Pipe()
    with ours:
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-m", __name__, str(handle)]
            # A session of its own: Ctrl-C reaches the run alone, which ends the child below.
            child = subprocess.Popen(command, pass_fds=(handle,), start_new_session=True)
        try:
            with _until_it_ends(child):
                for part in (json.dumps(order).encode(), model, timing):
                    ours.send_bytes(part)
            while "phase" in (told := json.loads(_heard(ours, child))):
                progress(told["phase"], told["done"], told["total"])
            if "reason" in told:
                raise (BackendMemoryError if told["memory"] else BackendError)(
                    told["reason"], fix=told["fix"]
                )
            return _heard(ours, child), _heard(ours, child)
        finally:
            child.kill()
            child.wait()


def _heard(link: Connection, child: subprocess.Popen[bytes]) -> bytes:
    with _until_it_ends(child):
        return link.recv_bytes()


@contextmanager
def _until_it_ends(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Tell of a pipe that closes too early by how the child ended."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise _ended(child.wait()) from error


def _ended(code: int) -> BackendError:
    """Return the error for a child that closed its pipe before it had answered."""
    what = "the process that builds the TensorRT plan"
    if code == -signal.SIGKILL:
        return BackendMemoryError(
            f"{what} was killed by SIGKILL, as the system does where it runs out of memory",
            fix="use a smaller --batch",
        )
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return BackendError(f"{what} {how}", fix="choose another --backend, or another version of TensorRT")


def serve(link: Connection) -> None:
    """Carry out the one order that comes over `link`."""
    order: dict[str, Any] = json.loads(link.recv_bytes())
    model, timing = link.recv_bytes(), link.recv_bytes()

    def told(phase: str, done: int, total: int) -> None:
        try:
            link.send_bytes(json.dumps({"phase": phase, "done": done, "total": total}).encode())
        except OSError as error:  # nobody waits for the plan any more
            raise StoppedError("the run that asked for a plan has ended", fix="run again") from error

    import_module("cupy").cuda.Device(order.pop("device")).use()
    order["tile"] = tuple(order["tile"])
    try:
        made = build_plan(import_module("tensorrt"), model, timing=timing, progress=told, **order)
    except BackendError as error:
        memory = isinstance(error, BackendMemoryError)
        answer = {"reason": error.reason, "fix": error.fix, "memory": memory}
        link.send_bytes(json.dumps(answer).encode())
        return
    link.send_bytes(json.dumps({"built": len(made[0])}).encode())
    for part in made:
        link.send_bytes(part)


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)
    with Connection(int(sys.argv[1])) as pipe:
        serve(pipe)
