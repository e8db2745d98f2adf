"""A map model ready to serve: rows of predictors in, probability, uncertainty and distance out."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import BackendError, BundleError
from lithostream.engine.graph_check import MAP_INPUT
from lithostream.engine.inference import onnxruntime
from lithostream.engine.maps.bundle import FIX, OUTPUTS, MapBundle
from lithostream.kernels.arrays import check_array

BATCH = 4096  # rows of a call, always: at another size or place in it a runtime may sum in another order

Floats = npt.NDArray[np.float32]


class MapPrediction(NamedTuple):
    """What a model says of N rows.

    Attributes
    ----------
    probability : float32 [N]
    uncertainty : float32 [N]
        Standard deviation between the members of the ensemble.
    distance : float32 [N]
        From the training rows, in standardised predictors.
    """

    probability: Floats
    uncertainty: Floats
    distance: Floats


class MapSession:
    """One ONNX Runtime CPU session that met the golden rows. Serves one thread.

    Parameters
    ----------
    bundle : MapBundle
        Verified bundle; its bytes are loaded, never its path.
    threads : int
        Intra-op threads.

    Raises
    ------
    BackendError
        ONNX Runtime is missing, or refuses the graph.
    BundleError
        It misses the golden rows.
    """

    def __init__(self, bundle: MapBundle, threads: int = 1) -> None:
        reason = onnxruntime.missing()
        if reason is not None:
            raise BackendError(reason, fix="pip install 'lithostream[cpu]'")
        self._session = onnxruntime.open_graph(bundle.model, threads)
        self.backend = onnxruntime.session_name(self._session)
        self._batch = np.zeros((BATCH, len(bundle.manifest.predictors)), np.float32)
        found = self.infer(bundle.golden_rows).probability
        worst = float(np.max(np.abs(found - bundle.golden_probability)))
        allowed = bundle.manifest.golden_tolerance
        if not worst <= allowed:  # NaN is a miss too
            raise BundleError(
                f"{self.backend} misses the golden probabilities by {worst:.3g}, {allowed:.3g} is allowed",
                file=bundle.path,
                fix=f"use another runtime version, or {FIX}",
            )

    def infer(self, rows: Floats) -> MapPrediction:
        """Predict rows; a row's answer depends on its values and, in the last bit, its place in a batch.

        Parameters
        ----------
        rows : float32 [N, P]
            Finite numbers, in the units and the order of the manifest; any N, 0 included.

        Returns
        -------
        MapPrediction
            NaN where the graph gives no number.

        Raises
        ------
        BackendError
            The runtime fails; `BackendMemoryError` where memory is why.
        """
        check_array("rows", rows, dtype=np.float32, shape=(None, self._batch.shape[1]))
        answers = MapPrediction(*(np.empty(len(rows), np.float32) for _ in OUTPUTS))
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            self._batch[: len(part)] = part
            with onnxruntime.runtime_errors():
                found = self._session.run(OUTPUTS, {MAP_INPUT: self._batch})
            for answer, values in zip(answers, found, strict=True):
                answer[start : start + BATCH] = values[: len(part)]
        return answers
