"""The folder of one section: written beside its place, then moved in whole."""

import os
import shutil
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


def commit_section(result: SectionResult, bundle: Bundle, out: Path) -> Path:
    """Write a section's tables, log, pictures and segment map, and put them in place in one step.

    A reader never sees half a section: the files are written to a hidden folder that then takes the
    section's name. Results of an earlier run under that name are replaced.
    """
    final = out / result.section.name
    partial = out / f".{result.section.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tables = section_tables(result, bundle)
    for name, table in tables.items():
        write_parquet(table, partial / f"{name}.parquet")
    write_las(tables["intervals"], partial / LAS)
    write_strip(partial / STRIP, result.preview, result.preview_mask)
    write_labels(result.segment_map, partial / SEGMENT_MAP, result.section.px_per_cm)
    write_mineral_map(
        partial / MINERAL_MAP,
        result.segment_map.preview(result.preview_step),
        np.where(result.segment_out_of_domain[:, None], np.nan, result.minerals.dry_weight_pct),
        bundle.manifest.minerals,
    )
    old = out / f".{result.section.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(partial, final)
    shutil.rmtree(old, ignore_errors=True)
    return final
