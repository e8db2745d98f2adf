"""The report of a run: one HTML file that needs nothing beside it, no network and no script."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from lithostream.engine.core.tables import flags_of, floats_of, minerals_of, targets_of
from lithostream.engine.core.targets import TARGETS
from lithostream.engine.report.content import Quarantined, ReportRun, ReportSection
from lithostream.engine.report.figure import strip_log_svg
from lithostream.engine.report.summary import mineral_table, notices, property_table, section_facts

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render_report(run: ReportRun, path: Path) -> None:
    """Write a run's report; equal runs give equal bytes (per matplotlib version).

    Parameters
    ----------
    run : ReportRun
    path : Path
        HTML file to write.

    Raises
    ------
    ContractError
        The truth of a section does not fit its table.
    OSError
        A strip cannot be read or the report not written.
    """
    parts = [_header(run), _contents(run), _quarantine(run.quarantined)]
    parts += [_section(number, section) for number, section in enumerate(run.sections)]
    write_page(path, run.title, parts)


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write parts of HTML as one page in the style of all reports."""
    css = files("lithostream.engine.report").joinpath("report.css").read_text(encoding="utf-8")
    page = _PAGE.format(title=escape(title), css=css, body="\n".join(filter(None, parts)))
    path.write_text(page, encoding="utf-8", newline="\n")


def _header(run: ReportRun) -> str:
    found, lost = len(run.sections), len(run.quarantined)
    lead = f"{found} section{'s' * (found != 1)} finished" + (f", {lost} quarantined" if lost else "")
    facts = {"Model bundle": run.bundle_name, "Bundle SHA-256": run.bundle_sha256, **run.facts}
    return f"""<header>
<p class="brand">lithostream core report</p>
<h1>{escape(run.title)}</h1>
<p class="lead">{lead}</p>
</header>
<section class="card">
<h2>Run</h2>
{facts_table(facts)}
<details><summary>Versions and settings</summary>
<div class="columns"><div><h3>Versions</h3>{facts_table(run.versions)}</div>
<div><h3>Settings</h3>{facts_table(run.settings)}</div></div>
</details>
</section>"""


def _contents(run: ReportRun) -> str:
    """Return the table of sections, where there are several."""
    if len(run.sections) < 2:
        return ""
    heading = ["section", "offset, cm", "intervals", "without core", "out of domain"]
    rows = []
    for number, section in enumerate(run.sections):
        table = section.intervals
        top, base = floats_of(table, "top_cm").min(), floats_of(table, "base_cm").max()
        counts = [table.num_rows, *(flags_of(table, name).sum() for name in ("no_core", "out_of_domain"))]
        link = f'<a href="#section-{number}">{escape(section.name)}</a>'
        rows.append([link, f"{round(top, 1):g} to {round(base, 1):g}", *map(str, counts)])
    return f'<section class="card">\n<h2>Sections</h2>\n{numbers_table(heading, rows)}\n</section>'


def _quarantine(entries: Sequence[Quarantined]) -> str:
    if not entries:
        return ""
    heading = "".join(f"<th>{name}</th>" for name in ("input", "file", "place", "reason", "fix"))
    rows = _rows(
        [escape(text or "–") for text in (entry.name, entry.file, entry.place, entry.reason, entry.fix)]
        for entry in entries
    )
    return f"""<section class="card">
<h2>Quarantined inputs</h2>
<p class="notice warn">These inputs have no result. The others are not affected.</p>
<div class="scroll"><table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table></div>
</section>"""


def _section(number: int, section: ReportSection) -> str:
    said = "\n".join(f'<p class="notice {n.level}">{escape(n.text)}</p>' for n in notices(section.intervals))
    picture = b64encode(strip_log_svg(section)).decode("ascii")
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    return f"""<section class="card" id="section-{number}">
<h2>{escape(section.name)}</h2>
{said}
<img class="figure" alt="{escape(_alt(section))}" src="data:image/svg+xml;base64,{picture}">
{_summary("Properties, over the intervals inside the domain", *property_table(section))}
{_summary("Minerals, mean over the intervals with an answer", *mineral_table(section))}
<div class="columns"><div><h3>Facts</h3>{facts_table(section_facts(section))}</div>
<div><h3>Notes</h3>{f"<ul>{notes}</ul>" if notes else "<p>None.</p>"}</div></div>
</section>"""


def _summary(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return f"<h3>{title}</h3>\n{numbers_table(heading, [[escape(cell) for cell in row] for row in rows])}"


def _alt(section: ReportSection) -> str:
    shown = [TARGETS[name].label for name in targets_of(section.intervals)]
    shown += ["mineral abundances"] if minerals_of(section.intervals) else []
    return f"Strip log of {section.name}: picture of the core, {', '.join(shown)} against section offset."


def facts_table(facts: Mapping[str, str]) -> str:
    """Render names and values."""
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f"<table><tbody>{rows}</tbody></table>"


def numbers_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a table of escaped cells whose first column names the row."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heading)
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, *cells in rows
    )
    return f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
