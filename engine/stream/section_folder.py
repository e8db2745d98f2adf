"""The files of one section."""

from pathlib import Path

import numpy as np

from lithostream.engine.bundle import Bundle
from lithostream.engine.core.columns import section_tables
from lithostream.engine.core.results import SectionResult
from lithostream.engine.io.label_tiff import write_labels
from lithostream.engine.io.las import write_las
from lithostream.engine.io.parquet import write_parquet
from lithostream.engine.report.mineral_map import write_mineral_map
from lithostream.engine.report.strip import write_strip

INTERVALS, LAS, STRIP = "intervals.parquet", "log.las", "strip.png"
SEGMENT_MAP, MINERAL_MAP = "segments.tif", "minerals.png"


def write_section(result: SectionResult, bundle: Bundle, folder: Path) -> None:
    """Write a section's tables, log, pictures and segment map into a folder."""
    tables = section_tables(result, bundle)
    for name, table in tables.items():
        write_parquet(table, folder / f"{name}.parquet")
    write_las(tables["intervals"], folder / LAS)
    write_strip(folder / STRIP, result.preview, result.preview_mask)
    write_labels(result.segment_map, folder / SEGMENT_MAP, result.section.px_per_cm)
    write_mineral_map(
        folder / MINERAL_MAP,
        result.segment_map.preview(result.preview_step),
        np.where(result.segment_out_of_domain[:, None], np.nan, result.minerals.dry_weight_pct),
        bundle.manifest.minerals,
    )
