"""From a stack of rasters to a map on disk: window by window, killed at any point and gone on with."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import ConfigError
from lithostream.engine.io.cog import CogBands, cog_writer
from lithostream.engine.io.raster import RasterStack, open_stack
from lithostream.engine.io.raster_reader import StackReader
from lithostream.engine.maps.bundle import load_map_bundle
from lithostream.engine.maps.figure import Squares
from lithostream.engine.maps.overlap import answers, parts
from lithostream.engine.maps.overview import Overview
from lithostream.engine.maps.place import made_before, workplace
from lithostream.engine.maps.predict import NO_NUMBER, NODATA, OUT_OF_DOMAIN, Answer, predict_window
from lithostream.engine.maps.record import MapRecord, MapSettings, beside, input_hashes, map_key
from lithostream.engine.maps.report import REPORT, write_map_report
from lithostream.engine.maps.session import MapSession
from lithostream.engine.maps.sites import SiteProbability, Sites, read_sites
from lithostream.engine.maps.spool import Spool
from lithostream.engine.maps.target_files import target_rows, write_target_csv, write_target_layer
from lithostream.engine.maps.targets import Target, TargetFinder
from lithostream.engine.maps.windows import Window, windows
from lithostream.engine.stream.failpoints import reach
from lithostream.engine.stream.lanes import Lanes

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""

SUFFIXES = (".tif", ".tiff")
FLAGS, TARGETS, TARGET_TABLE = "_flags.tif", "_targets.gpkg", "_targets.csv"


class _Lane(NamedTuple):
    """What a thread has for itself."""

    reader: StackReader
    session: MapSession


class _Found(NamedTuple):
    """What a pass over all windows found."""

    targets: list[Target]
    number: int
    overview: Overview
    sites: npt.NDArray[np.float64] | None


def map_stack(
    stack: Path,
    bundle_path: Path,
    out: Path,
    settings: MapSettings,
    progress: Progress,
    sites: Path | None = None,
) -> MapRecord:
    """Map a stack of rasters.

    Beside `out`, a Cloud-Optimised GeoTIFF of probability and uncertainty, lie `_flags.tif`, `_targets.gpkg`,
    `_targets.csv`, `.html` and `.json`. Equal inputs make equal bytes, whatever the threads and however often the run
    was killed on the way (per version of ONNX Runtime, GDAL and matplotlib).

    Parameters
    ----------
    stack, bundle_path, out : Path
    settings : MapSettings
    progress : callable
    sites : Path, optional
        Known sites for the report, CSV or GeoPackage.

    Raises
    ------
    LithostreamError
        An input does not fit, something else is at `out`, or another runner writes there.
    OSError
        The disk is full; the same call goes on.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"a map of rasters is a GeoTIFF, not {out.suffix or 'a folder'}", file=out, fix="name it MAP.tif"
        )
    bundle = load_map_bundle(bundle_path)
    opened = open_stack(stack, bundle.manifest.predictors, settings.crs)
    known = read_sites(sites, opened.grid.crs, settings.crs) if sites else None
    session = MapSession(bundle)
    inputs = input_hashes([*opened.files, *([sites] if sites else [])])
    bands = [(band.file.name, band.number, band.predictor.name) for band in opened.bands]
    key = map_key(
        bundle, settings, session.backend, {"inputs": inputs, "bands": bands, "crs": opened.grid.crs}
    )
    record = MapRecord(out, key, bundle, settings, session.backend, inputs)
    record.notes += [*opened.notes, *(known.notes if known else ())]
    if made_before(record):
        return record
    with workplace(record, _outputs(out)) as folder, closing(Spool(folder)) as spool:
        _answer(opened, record, spool, progress)
        _write(opened, record, spool, folder, known, progress)
    return record


def _answer(stack: RasterStack, record: MapRecord, spool: Spool, progress: Progress) -> None:
    """Answer the windows that the spool does not hold."""
    limit, bundle = record.bundle.manifest.distance_limit, record.bundle
    every = windows(stack.grid.shape, _window(stack, record), bundle.manifest.halo_px)
    todo = [window for window in every if window.number not in spool]
    total = len(spool) + len(todo)

    def answer(window: Window, lane: _Lane) -> tuple[Window, Answer]:
        values, valid = lane.reader.read(window.seen)
        return window, predict_window(values, valid, lane.session, limit)

    if not todo:
        return
    with ExitStack() as opened:
        lanes = Lanes(
            [
                _Lane(opened.enter_context(StackReader(stack)), MapSession(bundle))
                for _ in range(min(record.settings.threads, len(todo)))
            ]
        )
        opened.callback(lanes.close)
        for window, found in lanes.map(answer, todo):
            spool.add(window.number, found)
            reach("window-done")
            progress("answered", len(spool), total)


def _write(
    stack: RasterStack, record: MapRecord, spool: Spool, folder: Path, known: Sites | None, progress: Progress
) -> None:
    """Write all files into the folder, from the answers in the spool."""
    grid, out = stack.grid, record.out
    found = _pass(stack, record, spool, folder, known, progress)
    record.counts = {
        "all": grid.shape[0] * grid.shape[1],
        "missing": found.overview.missing,
        "answered": found.overview.answered,
        "out_of_domain": found.overview.out_of_domain,
        "targets": found.number,
    }
    if known is not None:
        record.counts["known_sites"] = len(known.x)
    if found.number > len(found.targets):
        record.notes.append(f"the best {len(found.targets)} of {found.number} targets are listed")
    write_target_csv(folder / beside(out, TARGET_TABLE).name, found.targets)
    write_target_layer(folder / beside(out, TARGETS).name, found.targets, grid.crs)
    squares = Squares(grid, found.overview.step, found.overview.probability, found.overview.outside)
    write_map_report(
        folder / beside(out, REPORT).name,
        record,
        squares,
        target_rows(found.targets),
        [(one.x, one.y) for one in found.targets],
        known,
        found.sites,
        degrees=not grid.metres,
    )


def _pass(
    stack: RasterStack, record: MapRecord, spool: Spool, folder: Path, known: Sites | None, progress: Progress
) -> _Found:
    """Go over all windows in order: into the rasters, the targets and the picture."""
    grid, out, manifest = stack.grid, record.out, record.bundle.manifest
    finder = TargetFinder(grid, manifest.threshold, record.settings.targets)
    overview = Overview(grid.shape)
    at_sites = SiteProbability(known, grid) if known is not None else None
    tags = {"BUNDLE": manifest.name, "BUNDLE_SHA256": record.bundle.sha256}
    numbers = CogBands(("probability", "uncertainty"), "float32", float("nan"), "AVERAGE", tags)
    meaning = {"NODATA": str(NODATA), "OUT_OF_DOMAIN": str(OUT_OF_DOMAIN), "NO_NUMBER": str(NO_NUMBER)}
    flags = CogBands(("flags",), "uint8", None, "NEAREST", tags | meaning)
    size, halo = _window(stack, record), manifest.halo_px
    with (
        cog_writer(folder / out.name, grid, numbers, size) as write_numbers,
        cog_writer(folder / beside(out, FLAGS).name, grid, flags, size) as write_flags,
    ):
        for window, answer in answers(spool, grid.shape, size, halo):
            write_numbers(window.own, (answer.probability, answer.uncertainty))
            write_flags(window.own, (answer.flags,))
            finder.add(window, answer)
            overview.add(window.own, answer)
            if at_sites is not None:
                at_sites.add(window.own, answer)
            progress("written", window.number + 1, parts(grid.shape, size, halo))
    return _Found(finder.targets(), finder.found, overview, None if at_sites is None else at_sites.values)


def _window(stack: RasterStack, record: MapRecord) -> tuple[int, int]:
    """Rows and columns of the windows: those that suit the files, but no smaller than what overlaps."""
    overlap = 2 * record.bundle.manifest.halo_px
    return max(stack.window[0], overlap), max(stack.window[1], overlap)


def _outputs(out: Path) -> list[str]:
    return [out.name, *(beside(out, ending).name for ending in (FLAGS, TARGETS, TARGET_TABLE, REPORT))]
