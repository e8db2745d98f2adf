"""Endmember colours out of images: the purest segments of a non-negative factorisation of their reflectance.

Colours of areas that lie side by side mix linearly in reflectance, so segments lie inside the simplex that the
endmembers span. Its corners are found in three steps: successive projection picks starting corners (Araujo and
others 2001, doi 10.1016/S0169-7439(01)00119-8), scikit-learn's NMF, on colours beside a constant, fits all segments
by shares of them, and each endmember becomes the mean colour of the segments with the largest share of it. So an
endmember is never purer than the purest segment, and grains mixed below the pixel (Hapke) are not undone.
"""

import csv
import warnings
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from lithostream.engine.config import RunSettings
from lithostream.engine.core.calibration import calibrate
from lithostream.engine.core.grid import Grid
from lithostream.engine.core.pooling import mean_reflectance, superpixels
from lithostream.engine.core.section import Section
from lithostream.engine.core.windows import open_section, windows
from lithostream.engine.errors import ConfigError, SourceError
from lithostream.engine.io.discover import discover

Floats = npt.NDArray[np.float64]

MOST_COUNT = 4  # corners of a simplex of three channels
LEAST_SEGMENTS = 10  # for each endmember
SAME_COLOUR = 0.005  # reflectance: a corner closer to the others is none
PUREST_SHARE = 0.005  # of the segments make one endmember


class Extracted(NamedTuple):
    """Endmembers, brightest first.

    Attributes
    ----------
    colour : float64 [K, 3]
        Reflectance, linear-light sRGB.
    residual : float
        Root mean square of what K endmembers leave of the segments' reflectance.
    """

    colour: Floats
    residual: float


def write_endmembers(path: Path, out: Path, count: int, settings: RunSettings | None = None) -> Extracted:
    """Extract endmembers from the calibrated sections of a path, and write a table of them.

    The table has the columns of the one that ships. Density, velocity and susceptibility stay blank: a colour does
    not tell them, and a run refuses the table until a person has filled them in.

    Raises
    ------
    SourceError
        A section is not calibrated or cannot be read.
    ConfigError
        More endmembers than the colours can tell apart.
    """
    sections, errors = discover([path])
    if errors:
        raise errors[0]
    parts = [segment_reflectance(section, settings or RunSettings()) for section in sections]
    reflectance = np.concatenate(parts)
    found = extract(reflectance, count)
    _write(out, found, f"{len(reflectance)} segments of {', '.join(section.name for section in sections)}")
    return found


def segment_reflectance(section: Section, settings: RunSettings) -> Floats:
    """Mean reflectance of every segment of a section, float64 [S, 3].

    Raises
    ------
    SourceError
        The section is not calibrated, or has no core in view.
    """
    source = open_section(section)
    told = calibrate(section, source.width_px)
    if told.calibration is None:
        raise SourceError(
            "; ".join(told.notes),
            file=section.image,
            fix="add a table [calibration] to the manifest: colours that are not calibrated are no endmembers",
        )
    step = settings.interval_cm
    rows = max(1, round(settings.window_cm / step))
    grid = Grid(source.height_px, source.width_px, section.px_per_cm, section.top_cm, step, step, rows)
    means: list[Floats] = []
    for window in windows(source, grid, settings, section.core_cm):
        labels = superpixels(window, grid, settings)
        mean = mean_reflectance(window, labels, told.calibration)
        means.append(mean[np.isfinite(mean[:, 0])])
    found = np.concatenate(means)
    if not len(found):
        raise SourceError("no unclipped core in view", file=section.image, fix="check the rule `roi`")
    return found


def extract(reflectance: Floats, count: int) -> Extracted:
    """Find the endmembers of segments.

    Parameters
    ----------
    reflectance : float64 [S, 3]
    count : int
        2 to 4.

    Raises
    ------
    ConfigError
        `count` is out of range, segments are too few, or their colours have fewer corners.
    """
    if not 2 <= count <= MOST_COUNT or len(reflectance) < LEAST_SEGMENTS * count:
        raise ConfigError(
            f"{count} endmembers from {len(reflectance)} segments",
            place="count",
            fix=f"three channels tell 2 to {MOST_COUNT} apart, given {LEAST_SEGMENTS} segments for each",
        )
    level = float(reflectance.mean())
    colours = np.clip(reflectance, 0.0, None)  # black may lie below zero by noise
    rows = np.concatenate([np.full((len(colours), 1), level), colours], axis=1)
    corners = rows[_corners(reflectance, count)]
    shares = np.clip(np.linalg.lstsq(corners.T, rows.T)[0].T, 1e-6, None)
    model = NMF(count, init="custom", max_iter=200)
    with warnings.catch_warnings():
        # Among equally good corners it may wander; the purest segments, which are kept, are the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        shares = model.fit_transform(rows, W=np.ascontiguousarray(shares), H=corners.copy())
    area = shares * model.components_[:, 0]
    area = area / area.sum(axis=1, keepdims=True)
    purest = max(1, round(PUREST_SHARE * len(rows)))
    order = np.argsort(-area, axis=0, kind="stable")[:purest]
    colour = reflectance[order].mean(axis=0)
    colour = colour[np.argsort(-colour.sum(axis=1), kind="stable")]
    misfit = rows[:, 1:] - (shares @ model.components_)[:, 1:]
    return Extracted(colour, float(np.sqrt(np.mean(misfit**2))))


def _corners(reflectance: Floats, count: int) -> list[int]:
    """Rows that lie farthest from the flat through those picked before: successive projection."""
    centred = reflectance - reflectance.mean(axis=0)
    picked = [int(np.argmax((centred**2).sum(axis=1)))]
    rest = reflectance - reflectance[picked[0]]
    for _ in range(count - 1):
        distance = np.sqrt((rest**2).sum(axis=1))
        farthest = int(np.argmax(distance))
        if distance[farthest] < SAME_COLOUR:
            raise ConfigError(
                f"the colours of the segments have {len(picked)} corners, not {count}",
                place="count",
                fix=f"ask for {len(picked)} endmembers" if len(picked) > 1 else "the image is of one colour",
            )
        picked.append(farthest)
        along = rest[farthest] / distance[farthest]
        rest = rest - np.outer(rest @ along, along)
    return picked


def _write(out: Path, found: Extracted, origin: str) -> None:
    shipped = (files("lithostream.engine.core") / "minerals.csv").read_text(encoding="utf-8")
    header: Sequence[str] = next(csv.reader(shipped.splitlines()))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        for number, (red, green, blue) in enumerate(found.colour.tolist(), start=1):
            writer.writerow(
                {
                    "name": f"endmember_{number}",
                    "colour_r": f"{red:.4f}",
                    "colour_g": f"{green:.4f}",
                    "colour_b": f"{blue:.4f}",
                    "colour_source": f"extracted: purest of {origin}",
                    "note": "reflectance of the surface as scanned, not of dry powder; fill in what is blank",
                }
            )
