"""What makes sections into files: a bundle, its sessions and the lanes they serve."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lithostream.engine.bundle import ENDMEMBERS, load_bundle
from lithostream.engine.config import RunSettings
from lithostream.engine.core.lane import Tools
from lithostream.engine.core.minerals import load_endmembers
from lithostream.engine.core.planes import wanted_planes
from lithostream.engine.core.process import OnWindow, collect_section
from lithostream.engine.core.results import CollectedSection
from lithostream.engine.core.row_source import RowSource
from lithostream.engine.core.section import Section
from lithostream.engine.core.segmenter import Segmenter
from lithostream.engine.device import open_device
from lithostream.engine.errors import BackendError, BackendMemoryError, BundleError, StoppedError
from lithostream.engine.inference import open_sessions
from lithostream.engine.inference.fallback import ServingSession
from lithostream.engine.inference.onnxruntime import missing_cuda
from lithostream.engine.stream.lanes import Lanes
from lithostream.engine.stream.run_record import section_entry
from lithostream.engine.stream.section_folder import write_section

SPILL = ".spill"


class Workshop:
    """Sections in, files out; knows of no ledger and no other section.

    Parameters
    ----------
    bundle_path : Path
    settings : RunSettings

    Raises
    ------
    ConfigError, BundleError, BackendError
    """

    def __init__(self, bundle_path: Path, settings: RunSettings) -> None:
        self.bundle, self.settings = load_bundle(bundle_path), settings
        self._endmembers = load_endmembers(self.bundle.path / ENDMEMBERS).subset(
            self.bundle.manifest.minerals
        )
        self._refines = self.bundle.refines(settings)
        sessions = open_sessions(
            self.bundle,
            settings.threads,
            batch=settings.batch,
            threads=1,
            backend=settings.backend,
            precision=settings.precision,
        )
        self._lanes = self._opened(sessions)

    @property
    def backend(self) -> str:
        """Inference runtime and version that serves now, and that of the segmenter where superpixels are refined."""
        tools = self._lanes.tools[0]
        beside = "" if tools.segmenter is None else f"; segmenter {tools.segmenter.backend}"
        return tools.session.backend + beside

    @property
    def notes(self) -> list[str]:
        """Of the inference: backends left out, memory that ran out; each once."""
        return list(dict.fromkeys(note for tools in self._lanes.tools for note in tools.session.notes))

    def collect(
        self, section: Section, source: RowSource, folder: Path, on_window: OnWindow
    ) -> CollectedSection:
        """Run every window, see `collect_section`.

        Parameters
        ----------
        section : Section
        source : RowSource
        folder : Path
            On a disk with room for what grows with the core.
        on_window : callable

        Raises
        ------
        BackendError
            Memory ran out, or the device was lost: `retreat`, and do all of the section again, so that none mixes
            two sessions.
        SourceError
        """
        return collect_section(
            section, source, self.bundle, self._lanes, self.settings, folder / SPILL, on_window
        )

    def retreat(self, error: BackendError) -> None:
        """Let other sessions serve, see `ServingSession.retreat`; the section in hand is to be done again as a whole.

        Raises
        ------
        BackendMemoryError
            `error`, where none is left.
        StoppedError
            None is left, and memory is not why: a new process may reach the device again.
        """
        self._lanes.close()
        for tools in self._lanes.tools:
            tools.device.release()
        sessions = [tools.session for tools in self._lanes.tools]
        try:
            for session in sessions:
                session.retreat(error)
            self._lanes = self._opened(sessions)
        except BackendMemoryError:
            raise
        except (BackendError, BundleError) as last:
            reason = f"{last.reason}; no other backend may serve: finished sections are whole"
            raise StoppedError(reason, fix="check the device, then run the same command again") from last

    def _opened(self, sessions: Sequence[ServingSession]) -> Lanes[Tools[ServingSession]]:
        """Put lanes where their sessions are, or let others serve where a lane cannot be."""
        while True:
            try:
                return Lanes([self._tools(session) for session in sessions], self._warm)
            except (BackendError, BundleError) as error:  # a segmenter may miss its golden cases
                if not any(session.on_gpu for session in sessions):
                    raise
                for session in sessions:
                    session.retreat(error)

    def _tools(self, session: ServingSession) -> Tools[ServingSession]:
        """Open the rest of a lane beside its session; TensorRT may serve where ONNX Runtime knows no GPU."""
        device, segmenter = open_device(session.on_gpu), None
        if self._refines:
            with device.current():
                segmenter = Segmenter(self.bundle, gpu=session.on_gpu and missing_cuda() is None)
        return Tools(session, segmenter, device)

    def _warm(self, tools: Tools[ServingSession]) -> None:
        """Let a lane's GPU record its work: the second run of a thread is the one that is kept."""
        if not tools.session.on_gpu:
            return
        with tools.device.current():
            golden = self.bundle.golden_tiles
            for _ in range(2):
                tools.session.infer(golden)  # through the session's own memory, which a CUDA graph reads
                tools.session.infer(tools.device.upload(golden))
                if tools.segmenter is not None:
                    side = tools.segmenter.view_px
                    view = tools.device.upload(np.zeros((side, side, 3), np.uint8))
                    tools.segmenter.masks(view, np.zeros((1, 2), np.float32))

    def finish(
        self, collected: CollectedSection, backend: str, begun: float, folder: Path
    ) -> dict[str, object]:
        """Write a section's files into a folder. Safe beside `collect` of another section.

        Parameters
        ----------
        collected : CollectedSection
        backend : str
            That it was collected by.
        begun : float
            When, as `time.monotonic` had it.
        folder : Path

        Returns
        -------
        dict
            What the record says of it.
        """
        section = collected.section
        notes = write_section(collected, self.bundle, self._endmembers, folder)
        planes = wanted_planes(section, self.bundle.manifest.input)
        return {**section_entry(section, planes, notes, time.monotonic() - begun), "backend": backend}

    def close(self) -> None:
        """End the lanes."""
        self._lanes.close()
