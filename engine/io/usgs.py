"""USGS core releases: images named as `2019_643_FA_GC01_01.tif`, sensor logs as `2019_643_FA_GC01.csv`.

An image is one section; a log is one whole core. A log that numbers its sections is read section by section, on
its own offsets. One that does not has depths through the core: then the images are stacked in the order of their
numbers, each as long as its picture, and `top_cm` counts from the top of the core. Rows are never counted.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lithostream.engine.core.section import Section
from lithostream.engine.errors import LithostreamError, LogError, SourceError
from lithostream.engine.io.images import open_image
from lithostream.engine.io.mscl import read_log
from lithostream.engine.io.sensor_log import SECTION_END_CM, SensorLog

CORE_DEPTH_SCALE = "core depth"
STACKED = "sections stacked in order, each as long as its image"

_CORE = r"(?P<year>\d{4})_(?P<number>\d{3})_(?P<kind>FA)_(?P<core>[A-Z]{1,3}\d{1,3}[A-Z]?)"
_IMAGE = re.compile(_CORE + r"_(?P<section>\d{2})", re.IGNORECASE)
_LOG = re.compile(_CORE + r"(_mscl)?\.csv", re.IGNORECASE)

Found = Section | LithostreamError


class UsgsCore(NamedTuple):
    """Field activity, as `2019-643-FA`, and core, as `GC01`."""

    survey: str
    core: str


@dataclass(frozen=True, slots=True)
class UsgsName:
    """What the name of a USGS core image says.

    Attributes
    ----------
    survey : str
        Field activity, as `2019-643-FA`.
    core, section : str
        As `GC01` and `01`.
    """

    survey: str
    core: str
    section: str


def parse_usgs_name(stem: str) -> UsgsName | None:
    """Read a file name without its extension; None where it is not of this form."""
    match = _IMAGE.fullmatch(stem)
    return None if match is None else UsgsName(*_core_of(match), match["section"])


def add_core_logs(found: Sequence[Found], folder: Path) -> list[Found]:
    """Give the sections of a release the log of their core.

    Parameters
    ----------
    found : sequence of Section or LithostreamError
        Of these, images with a USGS name that no manifest describes and that have no log of their own.
    folder : Path
        Searched for logs, with its sub-folders.

    Returns
    -------
    list of Section or LithostreamError
        As many as before, in that order. Where a log and the images of its core do not fit together, an error
        stands in the place of each of these images.
    """
    names = {one.image: name for one in found if isinstance(one, Section) and (name := _pairable(one))}
    if not names:
        return list(found)
    logs = _logs_in(folder)
    cores: dict[UsgsCore, list[Section]] = {}
    for one in found:
        if isinstance(one, Section) and one.image in names:
            name = names[one.image]
            identified = replace(one, core=name.core, section=name.section)
            cores.setdefault(UsgsCore(name.survey, name.core), []).append(identified)
    placed: dict[Path, Found] = {}
    for core, sections in cores.items():
        if core in logs:
            placed |= _with_log(sections, logs[core])
        elif logs:
            note = f"no log {core.survey.replace('-', '_')}_{core.core}.csv below {folder}"
            placed |= {one.image: replace(one, notes=(*one.notes, note)) for one in sections}
    return [placed.get(one.image, one) if isinstance(one, Section) else one for one in found]


def _core_of(match: re.Match[str]) -> UsgsCore:
    return UsgsCore(f"{match['year']}-{match['number']}-{match['kind'].upper()}", match["core"].upper())


def _pairable(section: Section) -> UsgsName | None:
    """Name of a section that may be given a log."""
    stated = section.log is not None or any(path.suffix == ".toml" for path in section.sidecars)
    return None if stated else parse_usgs_name(section.image.stem)


def _logs_in(folder: Path) -> Mapping[UsgsCore, list[Path]]:
    """Find logs by core; none that a link leads to from outside."""
    logs: dict[UsgsCore, list[Path]] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path, match = Path(place) / name, _LOG.fullmatch(name)
            if match is not None and path.resolve().is_relative_to(folder.resolve()):
                logs.setdefault(_core_of(match), []).append(path)
    return logs


def _with_log(sections: Sequence[Section], logs: Sequence[Path]) -> dict[Path, Found]:
    """Sections of one core with its log, by image; or the reason against it, once for each."""
    try:
        if len(logs) > 1:
            raise SourceError(
                f"a second log of the core, beside {logs[0]}",
                file=logs[1],
                fix="leave one of them, or describe the sections in a manifest.toml",
            )
        log = read_log(logs[0])
        if log.section is not None:
            return {one.image: replace(one, log=log.path) for one in sections}
        return {one.image: one for one in _stacked(sections, log)}
    except LithostreamError as error:
        return {one.image: _refused(one, error) for one in sections}


def _refused(section: Section, error: LithostreamError) -> SourceError:
    return SourceError(
        f"its log cannot be used: {error.file}: {error.reason}",
        file=section.image,
        place=error.place,
        fix=error.fix,
    )


def _stacked(sections: Sequence[Section], log: SensorLog) -> Iterator[Section]:
    """Place sections one below the other, on the core depths of a log."""
    ordered = sorted(sections, key=lambda one: int(one.section or 0))
    numbers = [int(one.section or 0) for one in ordered]
    fix = "state `log` and `top_cm`, the core depth of each image's upper edge, in a manifest.toml"
    if log.depth_kind != "core":
        raise LogError(
            "offsets within sections, but no section numbers", file=log.path, fix="add a column SECT_NUM"
        )
    if numbers != list(range(1, len(numbers) + 1)):
        there = ", ".join(str(one.section) for one in ordered)
        raise SourceError(
            f"images of the sections {there}: to stack them on the log's core depths, each from 01 on must be there once",
            file=log.path,
            fix=fix,
        )
    lengths = [_base_cm(one) for one in ordered]
    total, last = sum(lengths), float(log.depth_cm[-1])
    if abs(total - last) > SECTION_END_CM * len(ordered):
        raise SourceError(
            f"the log ends at {last:g} cm, the images together at {total:g} cm", file=log.path, fix=fix
        )
    note = (
        f"top_cm counts from the top of the core: {log.path.name} numbers no sections, so images were stacked; "
        f"they end at {total:.1f} cm, the log at {last:.1f} cm"
    )
    above = 0.0
    for one, length in zip(ordered, lengths, strict=True):
        yield replace(
            one,
            log=log.path,
            top_cm=above + one.top_cm,
            hole_top_m=0.0,
            depth_scale=CORE_DEPTH_SCALE,
            depth_method=STACKED,
            notes=(*one.notes, note),
        )
        above += length


def _base_cm(section: Section) -> float:
    """Section offset at which an image ends."""
    picture = open_image(section.image, depth_axis=section.depth_axis, white_level=section.white_level)
    return section.top_cm + picture.height_px / section.px_per_cm
