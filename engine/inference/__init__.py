"""Inference sessions: one small protocol, a file per runtime."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.config import AnyBackend
from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.manifest import Precision

if TYPE_CHECKING:  # it imports this module
    from lithostream.engine.inference.fallback import ServingSession


class Predictor(Protocol):
    """What turns tiles into numbers."""

    @property
    def backend(self) -> str:
        """Runtime and version, for the run's record."""
        ...

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Predict properties and embedding distance.

        Parameters
        ----------
        tiles : uint8 [N, S, S, C]
            Any N, 0 included. A session on a GPU also takes CuPy's, and then gives CuPy's.

        Returns
        -------
        properties : float32 [N, T]
        distance : float32 [N]

        Raises
        ------
        BackendMemoryError
            The runtime is out of memory.
        """
        ...


class Session(Predictor, Protocol):
    """A model ready to serve."""

    @property
    def precision(self) -> Precision:
        """What was asked for; how a runtime answers it is told by its class."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether it takes CuPy's tiles where they lie."""
        ...


def open_session(
    bundle: Bundle,
    *,
    batch: int,
    threads: int,
    backend: AnyBackend = "auto",
    precision: Precision = "fp32",
) -> "ServingSession":
    """Open a runtime and hold it to the bundle's golden cases.

    Parameters
    ----------
    bundle : Bundle
    batch : int
        Tiles per call, at most; halved where memory runs out.
    threads : int
        Of the host.
    backend : str
        "auto" takes the fastest one that meets the golden cases, as measured once on this machine, see
        `choose`; its choice stays. Any other name takes that one and no other.
    precision : {"fp32", "fp16", "int8"}

    Raises
    ------
    BackendError
        No runtime is installed, two overwrite each other, or the one asked for cannot run here.
    BundleError
        No session meets the golden cases, or the bundle has no such precision.
    """
    return open_sessions(bundle, 1, batch=batch, threads=threads, backend=backend, precision=precision)[0]


def open_sessions(
    bundle: Bundle,
    count: int,
    *,
    batch: int,
    threads: int,
    backend: AnyBackend = "auto",
    precision: Precision = "fp32",
) -> "tuple[ServingSession, ...]":
    """Open `count` sessions of one runtime, each for a thread of its own; see `open_session`."""
    from lithostream.engine.inference.choose import choose
    from lithostream.engine.inference.fallback import ServingSession

    choice = choose(bundle, batch=batch, threads=threads, backend=backend, precision=precision)
    return tuple(
        ServingSession(bundle, choice, batch=batch, threads=threads, precision=precision)
        for _ in range(count)
    )


def require_one_runtime(installed: set[str]) -> None:
    """Refuse to guess between ONNX Runtime builds that install over each other."""
    found = sorted(installed & {"onnxruntime", "onnxruntime-gpu"})
    if not found:
        raise BackendError("no inference runtime is installed", fix="pip install 'lithostream[cpu]'")
    if len(found) > 1:
        raise BackendError(
            f"{' and '.join(found)} are both installed and overwrite each other",
            fix="pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'lithostream[cpu]'",
        )


def golden_deviation(session: Predictor, bundle: Bundle) -> float:
    """Largest deviation from the expected outputs stored in the bundle; NaN or infinity where one is no number.

    It is counted in units of each property's spread over the golden cases, so one tolerance serves g/cm3
    and m/s alike. Nothing is stored of the distances, they must only be numbers.
    """
    found, distance = session.infer(bundle.golden_tiles)
    spread = np.maximum(bundle.golden_properties.std(axis=0), 1e-6)
    worst = float(np.max(np.abs(found - bundle.golden_properties) / spread))
    return worst if np.isfinite(distance).all() else float("nan")


def check_golden(session: Predictor, bundle: Bundle, allowed: float | None = None) -> float:
    """Return a session's deviation on the golden cases, at most `allowed`, by default the tolerance of fp32.

    Raises
    ------
    BundleError
        Naming the deviation.
    """
    allowed = bundle.tolerance() if allowed is None else allowed
    worst = golden_deviation(session, bundle)
    if not worst <= allowed:
        raise BundleError(
            f"{session.backend} misses the golden cases by {worst:.3g} standard deviations,"
            f" {allowed:.3g} are allowed",
            file=bundle.path,
            fix="use another runtime version, or export the bundle again",
        )
    return worst
