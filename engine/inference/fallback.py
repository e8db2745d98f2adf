"""What serves when memory runs out: half the batch, down to one tile; then the next backend, as after a lost device."""

from collections import deque

import numpy as np
import numpy.typing as npt

from lithostream.engine.bundle import Bundle
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError, LithostreamError
from lithostream.engine.inference import Session
from lithostream.engine.inference.choose import Choice
from lithostream.engine.inference.runtimes import call_sizes, open_gated
from lithostream.engine.manifest import Precision


class ServingSession:
    """The session of a choice, and those that may take its place.

    No result mixes two of them: `infer` raises what its session raises, and the caller then asks for another by
    `retreat` and computes the whole section again.

    Parameters
    ----------
    bundle, batch, threads, precision
        As in `open_session`.
    choice : Choice
        Backends in the order in which they are tried.

    Attributes
    ----------
    precision : str
    notes : list of str
        What a person should know: backends left out, memory that ran out, a device that was lost.

    Raises
    ------
    BackendError, BundleError
        None can be opened: why the first cannot.
    """

    def __init__(
        self, bundle: Bundle, choice: Choice, *, batch: int, threads: int, precision: Precision
    ) -> None:
        self.precision: Precision = precision
        self.notes = list(choice.notes)
        self._bundle, self._threads = bundle, threads
        self._attempts = deque((name, size) for name in choice.order for size in call_sizes(name, batch))
        self._session = self._next()

    @property
    def backend(self) -> str:
        """Runtime and version of what serves now."""
        return self._session.backend

    @property
    def on_gpu(self) -> bool:
        """Whether what serves now takes CuPy's tiles where they lie."""
        return self._session.on_gpu

    def infer(self, tiles: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `Session.infer`."""
        return self._session.infer(tiles)

    def retreat(self, error: BackendError | BundleError) -> None:
        """Let another session serve: of less memory where that ran out, else of another backend.

        Raises
        ------
        BackendError, BundleError
            `error`, or what ended the last attempt, where none is left.
        """
        del self._session  # its memory first
        self.notes.append(error.reason)
        why = "out of memory"
        if not isinstance(error, BackendMemoryError):
            why = f"{self._name} is given up"
            self._drop(self._name)
        self._session = self._next(error)
        self.notes.append(f"{why}: went on with {self.backend}, {self._batch} tiles per call")

    def _next(self, first: LithostreamError | None = None) -> Session:
        while self._attempts:
            self._name, self._batch = self._attempts.popleft()
            try:
                return open_gated(
                    self._name,
                    self._bundle,
                    batch=self._batch,
                    threads=self._threads,
                    precision=self.precision,
                ).session
            except BackendMemoryError as error:
                reason: LithostreamError = error
            except (BackendError, BundleError) as error:
                reason = error
                self._drop(self._name)
            self.notes.append(f"{self._name} of {self._batch} tiles per call: {reason.reason}")
            first = first or reason
        raise first or BackendError("no backend to open", fix="pip install 'lithostream[cpu]'")

    def _drop(self, name: str) -> None:
        """Try a backend no more."""
        self._attempts = deque(one for one in self._attempts if one[0] != name)
