"""A generated section as files: what a scanner and a multi-sensor core logger would have written."""

import csv
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile

from lithostream.engine.core.synthetic.layout import FloatArray
from lithostream.engine.core.synthetic.section import SyntheticCore

SCANNER = "lithostream synthetic"
# Steps of the sensor log and of the truth table, cm.
LOG_STEP_CM = 1.0
TABLE_STEP_CM = 0.5

_STRIP_ROWS = 64


@dataclass(frozen=True, slots=True)
class Sensor:
    """How one logger sensor sees the core: column, property, footprint and noise."""

    column: str
    name: str
    footprint_cm: float
    noise: float
    relative_noise: float


# Geotek MSCL: collimated gamma beam, rolling P-wave transducers, Bartington loop.
SENSORS = (
    Sensor("density", "density", 1.0, 0.010, 0.0),
    Sensor("pwave_vel", "p_wave_velocity", 2.0, 4.0, 0.0),
    Sensor("mag_sus", "magnetic_susceptibility", 6.0, 0.5, 0.01),
)


def sensor_log(core: SyntheticCore) -> dict[str, FloatArray]:
    """Read the core with every sensor at each `LOG_STEP_CM`: float64 [M] per column.

    Each sensor averages its footprint and adds its noise; a footprint that is not all core reads NaN.
    """
    rng = np.random.default_rng([core.seed, 4])
    depth = np.arange(LOG_STEP_CM, core.layout.length_cm - 0.5 * LOG_STEP_CM, LOG_STEP_CM)
    log = {"sb_depth_cm": depth}
    for sensor in SENSORS:
        half = 0.5 * sensor.footprint_cm
        truth = core.truth_at(depth - half, depth + half)
        reading = truth[sensor.name]
        std = sensor.noise + sensor.relative_noise * np.abs(reading)
        reading = reading + std * rng.standard_normal(len(depth))
        log[sensor.column] = np.where(truth["core_share"] > 1 - 1e-6, reading, np.nan)
    return log


def write(core: SyntheticCore, folder: Path) -> Path:
    """Write image, scanner sidecar, sensor log and truth, and return the path of the image.

    The files are `<name>.tif` (uncompressed strips), `<name>.xml` (Geotek tags), `<name>_mscl.csv` and
    `<name>_truth.parquet`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{core.name}.tif"
    tifffile.imwrite(
        path,
        core.image,
        photometric="rgb",
        rowsperstrip=_STRIP_ROWS,
        resolution=(core.px_per_cm, core.px_per_cm),
        resolutionunit="CENTIMETER",
        software="lithostream",
        metadata=None,
    )
    ElementTree.ElementTree(_sidecar(core)).write(
        path.with_suffix(".xml"), encoding="utf-8", xml_declaration=True
    )
    log = sensor_log(core)
    with (folder / f"{core.name}_mscl.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(log)
        for values in zip(*log.values(), strict=True):
            rows.writerow("" if np.isnan(value) else f"{value:.4f}" for value in values)
    pq.write_table(_truth_table(core), folder / f"{core.name}_truth.parquet")
    return path


def _sidecar(core: SyntheticCore) -> ElementTree.Element:
    height, width = core.core_mask.shape
    core_id, section_id = core.name.rsplit("_", 1)
    root = ElementTree.Element("linescan")
    for tag, text in (
        ("coreID", core_id),
        ("Section-ID", section_id),
        ("Image-Type", "RGB"),
        ("scanner", SCANNER),
        ("pixels-per-CM", f"{core.px_per_cm:g}"),
        ("physical-top", "0"),
        ("physical-height", f"{height / core.px_per_cm:.4f}"),
        ("physical-width", f"{width / core.px_per_cm:.4f}"),
        ("scan-lines", str(height)),
        ("pixel-width", str(width)),
    ):
        ElementTree.SubElement(root, tag).text = text
    ElementTree.indent(root)
    return root


def _truth_table(core: SyntheticCore) -> pa.Table:
    edges = np.arange(0.0, core.layout.length_cm + 1e-9, TABLE_STEP_CM)
    truth = core.truth_at(edges[:-1], edges[1:])
    return pa.table({"top_cm": edges[:-1], "base_cm": edges[1:], **truth})
