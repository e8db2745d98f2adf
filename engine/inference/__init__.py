"""Inference sessions: one small protocol, a file per runtime."""

from importlib.metadata import distributions
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.errors import BackendError, BundleError


class Session(Protocol):
    """A model ready to serve."""

    @property
    def backend(self) -> str:
        """Runtime and version, for the run's record."""
        ...

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Predict properties and embedding distance.

        Parameters
        ----------
        tiles : uint8 [N, S, S, C]
            Any N, 0 included.

        Returns
        -------
        properties : float32 [N, T]
        distance : float32 [N]
        """
        ...


def open_session(bundle: Bundle, *, batch: int, threads: int) -> Session:
    """Open the one installed runtime and hold it to the bundle's golden cases.

    Raises
    ------
    BackendError
        When no runtime, or two that overwrite each other, are installed.
    BundleError
        When the session misses the golden cases.
    """
    require_one_runtime({dist.metadata["Name"].lower() for dist in distributions()})
    from lithostream.engine.inference.onnxruntime import OnnxRuntimeSession

    session = OnnxRuntimeSession(bundle, batch=batch, threads=threads)
    check_golden(session, bundle)
    return session


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


def check_golden(session: Session, bundle: Bundle) -> None:
    """Compare a session with the expected outputs stored in the bundle.

    The deviation is counted in units of each property's spread over the golden cases, so one
    tolerance serves g/cm3 and m/s alike.
    """
    found, _ = session.infer(bundle.golden_tiles)
    spread = np.maximum(bundle.golden_properties.std(axis=0), 1e-6)
    worst = float(np.max(np.abs(found - bundle.golden_properties) / spread))
    if not worst <= bundle.manifest.golden_tolerance:
        raise BundleError(
            f"{session.backend} misses the golden cases by {worst:.3g} standard deviations,"
            f" {bundle.manifest.golden_tolerance:.3g} are allowed",
            file=bundle.path,
            fix="use another runtime version, or export the bundle again",
        )
