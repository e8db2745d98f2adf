"""The report of a map: one HTML file that needs nothing beside it, no network and no script."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.maps.figure import Placed, Squares, map_svg
from lithostream.engine.maps.record import MapRecord
from lithostream.engine.maps.sites import Sites
from lithostream.engine.report.html import facts_table, numbers_table, write_page

REPORT = ".html"
NONE = "<p>None.</p>"
_LISTED = 25  # rows of a table: the files beside the report have them all

Floats = npt.NDArray[np.float64]


def write_map_report(
    path: Path,
    record: MapRecord,
    shown: Squares | Placed,
    best: tuple[Sequence[str], Sequence[Sequence[str]]],
    places: Sequence[tuple[float, float]],
    sites: Sites | None,
    at_sites: Floats | None,
    *,
    degrees: bool,
) -> None:
    """Write a report; equal maps give equal bytes (per matplotlib version).

    Parameters
    ----------
    path : Path
        HTML file to write.
    record : MapRecord
    shown : Squares or Placed
    best : (heading, rows)
        Table of the best targets, as text.
    places : sequence of (x, y)
        Where they are.
    sites : Sites, optional
    at_sites : float64 [N], optional
        Probability there, NaN where there is none; of a raster.
    degrees : bool
        Whether x and y are degrees.
    """
    picture = b64encode(map_svg(shown, sites, places, degrees)).decode("ascii")
    manifest = record.bundle.manifest
    facts = {name.replace("_", " "): f"{count:,}" for name, count in record.counts.items()}
    model = {
        "Model bundle": manifest.name,
        "Bundle SHA-256": record.bundle.sha256,
        "Made for": manifest.description,
        "Predictors": ", ".join(f"{p.name}{f' [{p.unit}]' if p.unit else ''}" for p in manifest.predictors),
        "Threshold": f"{manifest.threshold:.3g}",
        "Distance limit": f"{manifest.distance_limit:.3g}",
        "Backend": record.backend,
    }
    heading, rows = best
    table = (
        numbers_table(heading, [[escape(cell) for cell in row] for row in rows[:_LISTED]]) if rows else NONE
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in record.notes)
    alt = f"Map of probability{', known sites' if sites else ''} and targets."
    header = f"""<header>
<p class="brand">lithostream map report</p>
<h1>{escape(record.out.stem)}</h1>
<p class="lead">{escape(_lead(record))}</p>
</header>"""
    figure = f'<img class="figure" alt="{alt}" src="data:image/svg+xml;base64,{picture}">'
    columns = f"""<div class="columns"><div><h3>Map</h3>{facts_table(facts)}</div>
<div><h3>Model</h3>{facts_table(model)}</div></div>
<h3>Notes</h3>
{f"<ul>{notes}</ul>" if notes else NONE}"""
    cards = [_card("Probability", figure), _card("Best targets", table), _known(at_sites, manifest.threshold)]
    write_page(path, record.out.stem, [header, *cards, _card("Facts", columns)])


def _card(title: str, content: str) -> str:
    return f'<section class="card">\n<h2>{title}</h2>\n{content}\n</section>'


def _lead(record: MapRecord) -> str:
    total, answered = record.counts["all"], record.counts["answered"]
    return f"{answered:,} of {total:,} places have a probability; {record.counts['out_of_domain']:,} are unlike the training data"


def _known(values: Floats | None, threshold: float) -> str:
    """Say how the known sites fare. They may have been trained on: it is no test of the model."""
    if values is None:
        return ""
    there = np.isfinite(values)
    facts = {
        "Sites": str(len(values)),
        "With a probability": str(int(there.sum())),
        "At or above the threshold": str(int((values[there] >= threshold).sum())),
        "Median probability": f"{np.median(values[there]):.3f}" if there.any() else "–",
    }
    warning = '<p class="notice warn">Sites that the model was trained on fare well by themselves.</p>'
    return _card("Known sites", f"{warning}\n{facts_table(facts)}")
