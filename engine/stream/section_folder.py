"""The files of one section."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.columns import interval_table, segment_table, tile_table
from lithostream.engine.core.finish import (
    IntervalMinerals,
    TileMeans,
    correct_tiles,
    interval_result,
    solved_segments,
    tile_means,
)
from lithostream.engine.core.minerals import Endmembers
from lithostream.engine.core.results import CollectedSection
from lithostream.engine.core.stacking import SUPERPIXELS
from lithostream.engine.io.label_tiff import write_labels
from lithostream.engine.io.las import write_las
from lithostream.engine.io.parquet import PART_ROWS, write_parquet, write_parts
from lithostream.engine.report.mineral_map import Index, map_index, write_mineral_map
from lithostream.engine.report.strip import write_strip

INTERVALS, LAS, STRIP = "intervals.parquet", "log.las", "strip.png"
TILES, SEGMENTS = "tiles.parquet", "segments.parquet"
SEGMENT_MAP, MINERAL_MAP = "segments.tif", "minerals.png"


def write_section(
    collected: CollectedSection, bundle: Bundle, endmembers: Endmembers, folder: Path
) -> tuple[str, ...]:
    """Finish a section, and write its tables, log, pictures and segment map into a folder.

    Strip and segment map, which nothing else waits for, are compressed beside the tables.

    Memory holds some thousand segments, a row group of a table, all tiles for a while, and the intervals.

    Parameters
    ----------
    collected : CollectedSection
        It stays open.
    bundle : Bundle
    endmembers : Endmembers
        The bundle's table.
    folder : Path

    Returns
    -------
    tuple of str
        What is to be known about the section.

    Raises
    ------
    LithostreamError
        A table cannot be written as a log.
    OSError
        A file cannot be written.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="pictures") as beside:
        pictures = beside.submit(_write_pictures, collected, folder)
        index = _write_tables(collected, bundle, endmembers, folder)
        pictures.result()
    labels, step = collected.segment_map, collected.preview.step
    write_mineral_map(folder / MINERAL_MAP, labels.preview(step), index, bundle.manifest.minerals)
    return collected.notes


def _write_pictures(collected: CollectedSection, folder: Path) -> None:
    write_strip(folder / STRIP, *collected.preview.pixels())
    write_labels(collected.segment_map, folder / SEGMENT_MAP, collected.section.px_per_cm)


def _write_tables(collected: CollectedSection, bundle: Bundle, endmembers: Endmembers, folder: Path) -> Index:
    """Write tiles, segments, intervals and log; returns the place of each segment in the mineral map's palette."""
    means, shift = _write_tiles(collected, bundle, folder / TILES)
    minerals = IntervalMinerals(len(collected.core_px), len(endmembers.names))
    index = []

    def segments() -> Iterator[pa.Table]:
        for part, solved in solved_segments(collected, shift, bundle, endmembers):
            if not collected.refined:
                minerals.add(part, solved)
            index.append(map_index(np.where(part.out_of_domain[:, None], np.nan, solved.dry_weight_pct)))
            yield segment_table(collected, part, solved, bundle)

    write_parts(segments(), folder / SEGMENTS)
    if collected.refined:  # an object may be longer than an interval: superpixels know depth better
        for part, solved in solved_segments(collected, shift, bundle, endmembers, SUPERPIXELS):
            minerals.add(part, solved)
    intervals = interval_table(collected, interval_result(collected, means, minerals), bundle)
    write_parquet(intervals, folder / INTERVALS)
    write_las(intervals, folder / LAS)
    return np.concatenate(index)


def _write_tiles(
    collected: CollectedSection, bundle: Bundle, path: Path
) -> tuple[TileMeans, npt.NDArray[np.float64] | None]:
    """Write the tiles; what else needs them is gathered here, so that they are gone before the segments come."""
    corrected = correct_tiles(collected, bundle)
    write_parts((tile_table(collected, part, bundle) for part in corrected.tiles.parts(PART_ROWS)), path)
    return tile_means(collected.grid, corrected), corrected.shift
