"""A section's results as the columns of its three tables."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.finish import SegmentPart
from lithostream.engine.core.results import CollectedSection, IntervalResult, TileResult
from lithostream.engine.core.tables import (
    DRY_WEIGHT_PCT,
    VOLUME_HIGH_PCT,
    VOLUME_LOW_PCT,
    VOLUME_PCT,
    WIDTH_PCT,
    build_table,
    interval_fields,
    segment_fields,
    tile_fields,
)
from lithostream.engine.core.unmix import PROPERTIES, MineralFlag, MineralResult

CM_PER_M = 100.0
_SOURCE_NAMES = np.array([None, "predicted", "measured", "mixed"], object)  # by the bits of `Source`

Columns = dict[str, npt.NDArray[Any]]


def _provenance(collected: CollectedSection, bundle: Bundle) -> dict[str, str]:
    section = collected.section
    return {
        "section": section.name,
        "image": section.image.name,
        "px_per_cm": repr(section.px_per_cm),
        "scale_source": section.scale_source,
        "bundle": bundle.manifest.name,
        "bundle_sha256": bundle.sha256,
        "regime": bundle.manifest.regime,
    }


def _repeat(value: str | None, count: int) -> npt.NDArray[Any]:
    return np.full(count, value, object)


def interval_table(collected: CollectedSection, found: IntervalResult, bundle: Bundle) -> pa.Table:
    """Return the table `intervals` of a section."""
    section, grid = collected.section, collected.grid
    edges = grid.interval_rows
    count = len(edges) - 1
    top, base = grid.depth_cm(edges[:-1]), grid.depth_cm(edges[1:])
    hole_top_m = np.nan if section.hole_top_m is None else section.hole_top_m
    ends = np.zeros(count, bool)
    for joined in found.measured.values():
        ends |= joined.section_end
    ends[[0, -1]] = True
    columns: Columns = {
        "section": _repeat(section.name, count),
        "hole": _repeat(section.hole, count),
        "interval": np.arange(count),
        "top_cm": top,
        "base_cm": base,
        "top_m": hole_top_m + top / CM_PER_M,
        "base_m": hole_top_m + base / CM_PER_M,
        "depth_scale": _repeat(section.depth_scale, count),
        "depth_method": _repeat(section.depth_method, count),
        "px_per_cm": np.full(count, section.px_per_cm),
        "scale_source": _repeat(section.scale_source, count),
        "core_fraction": found.core_fraction,
        "tile_count": found.tile_count,
        "unmixing_residual": found.residual,
        "out_of_domain": found.out_of_domain,
        "no_core": found.no_core,
        "lines_lost": found.lines_lost,
        "partial": np.diff(edges) < np.floor(grid.interval_cm * grid.px_per_cm),
        "section_end": ends,
        "underdetermined": found.underdetermined,
    }
    for place, output in enumerate(bundle.manifest.outputs):
        measured = found.measured.get(output.name)
        columns[output.name] = found.mean[:, place]
        columns[f"{output.name}_low"] = found.low[:, place]
        columns[f"{output.name}_high"] = found.high[:, place]
        columns[f"{output.name}_std"] = found.std[:, place]
        columns[f"{output.name}_measured"] = measured.value if measured else np.full(count, np.nan)
    for place, mineral in enumerate(bundle.manifest.minerals):
        columns[f"{mineral}{VOLUME_PCT}"] = found.volume_pct[:, place]
        columns[f"{mineral}{VOLUME_LOW_PCT}"] = found.volume_low_pct[:, place]
        columns[f"{mineral}{VOLUME_HIGH_PCT}"] = found.volume_high_pct[:, place]
        columns[f"{mineral}{DRY_WEIGHT_PCT}"] = found.dry_weight_pct[:, place]
        columns[f"{mineral}{WIDTH_PCT}"] = found.width_pct[:, place]
    columns |= _sources(found.source, bundle)
    fields = interval_fields(bundle.targets, bundle.manifest.minerals)
    return build_table(fields, columns, _provenance(collected, bundle))


def tile_table(collected: CollectedSection, tiles: TileResult, bundle: Bundle) -> pa.Table:
    """Return the table `tiles` of a section, or of some of its tiles."""
    grid = collected.grid
    rows, cols = grid.tile_rows, grid.tile_cols
    columns: Columns = {
        "section": _repeat(collected.section.name, len(tiles.row)),
        "tile_row": tiles.row,
        "tile_col": tiles.col,
        "top_cm": grid.depth_cm(rows[tiles.row]),
        "base_cm": grid.depth_cm(rows[tiles.row + 1]),
        "left_cm": cols[tiles.col] / grid.px_per_cm,
        "right_cm": cols[tiles.col + 1] / grid.px_per_cm,
        "core_fraction": tiles.core_fraction,
        "ood_distance": tiles.distance,
        "out_of_domain": tiles.out_of_domain,
    }
    columns |= dict(zip(bundle.targets, tiles.properties.T, strict=True))
    return build_table(tile_fields(bundle.targets), columns, _provenance(collected, bundle))


def segment_table(
    collected: CollectedSection, part: SegmentPart, minerals: MineralResult, bundle: Bundle
) -> pa.Table:
    """Return a part of the table `segments` of a section."""
    grid, segments = collected.grid, part.segments
    count = len(segments.area_px)
    columns: Columns = {
        "section": _repeat(collected.section.name, count),
        "segment": part.first + np.arange(count),
        "window": segments.window,
        "parent": segments.parent,
        "area_px": segments.area_px,
        # A pixel's centre lies half a pixel beyond its index.
        "centroid_cm": grid.depth_cm(segments.centroid[:, 0] + 0.5),
        "centroid_left_cm": (segments.centroid[:, 1] + 0.5) / grid.px_per_cm,
        "top_cm": grid.depth_cm(segments.box[:, 0]),
        "base_cm": grid.depth_cm(segments.box[:, 2]),
        "left_cm": segments.box[:, 1] / grid.px_per_cm,
        "right_cm": segments.box[:, 3] / grid.px_per_cm,
        "unmixing_residual": minerals.residual,
        "unmixing_condition": np.where(np.isfinite(minerals.condition), minerals.condition, np.nan),
        "out_of_domain": part.out_of_domain,
        "underdetermined": (minerals.flags & MineralFlag.UNDERDETERMINED) > 0,
    }
    for place, colour in enumerate(("red", "green", "blue")):
        columns[colour] = segments.colour[:, place]
        columns[f"{colour}_std"] = segments.colour_std[:, place]
        columns[f"{colour}_reflectance"] = segments.reflectance[:, place]
    values = segments.values[:, :-1]
    columns |= dict(zip(bundle.targets, values.T, strict=True))
    for place, mineral in enumerate(bundle.manifest.minerals):
        columns[f"{mineral}{VOLUME_PCT}"] = minerals.volume_pct[:, place]
        columns[f"{mineral}{VOLUME_LOW_PCT}"] = minerals.low_pct[:, place]
        columns[f"{mineral}{VOLUME_HIGH_PCT}"] = minerals.high_pct[:, place]
    columns |= _sources(minerals.source, bundle)
    fields = segment_fields(bundle.targets, bundle.manifest.minerals)
    return build_table(fields, columns, _provenance(collected, bundle))


def _sources(source: npt.NDArray[np.uint8], bundle: Bundle) -> Columns:
    known = PROPERTIES if bundle.manifest.minerals else ()
    return {f"{name}_source": _SOURCE_NAMES[source[:, place]] for place, name in enumerate(known)}
