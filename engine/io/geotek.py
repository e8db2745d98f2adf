"""Geotek XML sidecars: the file of the same stem that a Geotek camera leaves beside each image.

There is no public specification. Tag names follow two independent readers (spmls/corescan-plotting and a
facility viewer), and case, `-` and `_` in them vary between software versions, so all are ignored here.
Lengths are centimetres.
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from lithostream.engine.errors import ScaleError, SourceError
from lithostream.engine.io.names import leaves_folder
from lithostream.engine.io.scale import SCALE_TOLERANCE, Statement, check_scale

MAX_BYTES = 1_000_000
PATH_TAGS = ("filename", "filepath", "imagefile", "imagefilename", "imagepath")
NUMBER_TAGS = (
    "pixelspercm",
    "physicaltop",
    "physicalheight",
    "physicalwidth",
    "scanlines",
    "pixelwidth",
    "whitelevel",
    "bitdepth",
)
TEXT_TAGS = ("coreid", "sectionid", "imagetype", "scanner")
# bit-depth is written per channel or for all three together
CHANNEL_BITS = {8: 8, 10: 10, 12: 12, 14: 14, 16: 16, 24: 8, 48: 16}


@dataclass(frozen=True, slots=True)
class Tag:
    """The text of one XML element, and its line."""

    name: str
    text: str
    line: int

    @property
    def place(self) -> str:
        """How messages name it."""
        return f"line {self.line}, <{self.name}>"


@dataclass(frozen=True, slots=True)
class GeotekSidecar:
    """What a Geotek XML file says; None where it is silent.

    Attributes
    ----------
    path : Path
    core, section, image_type, scanner : str, optional
    white_level : int, optional
        Sample value of white; only where it is not that of 8 bits.
    statement : Statement
        Scale and top (`pixels-per-CM`, `physical-top`).
    tags : dict of str to Tag
        Every tag this reader knows and found, by its bare name.
    """

    path: Path
    core: str | None
    section: str | None
    image_type: str | None
    scanner: str | None
    white_level: int | None
    statement: Statement
    tags: dict[str, Tag]

    def check_size(self, height_px: int, width_px: int) -> None:
        """Refuse a sidecar that describes an image of another size: it belongs to another file."""
        for name, found in (("scanlines", height_px), ("pixelwidth", width_px)):
            said = _count(self.path, self.tags, name)
            if said is not None and said != found:
                raise ScaleError(
                    f"{said} pixels, but the image has {found}",
                    file=self.path,
                    place=self.tags[name].place,
                    fix="use the sidecar that was written with this image",
                )


def find_sidecar(image: Path) -> Path | None:
    """Find the XML file of an image's own stem, whatever its case."""
    wanted = f"{image.stem}.xml"
    found = [name for name in os.listdir(image.parent) if name.casefold() == wanted.casefold()]
    return image.parent / min(found, key=lambda name: (name != wanted, name)) if found else None


def read_sidecar(path: Path) -> GeotekSidecar:
    """Read a sidecar.

    Raises
    ------
    SourceError
        Over 1 MB, not XML, wrong encoding, a DOCTYPE, or a path that leaves the folder.
    ScaleError
        A number that is not one, a scale that is not positive, or lengths that contradict it.
    """
    tags = _parse(path)
    for name in PATH_TAGS:
        tag = tags.get(name)
        if tag is not None and leaves_folder(tag.text):
            raise SourceError(
                f"path {tag.text!r} leaves the folder",
                file=path,
                place=tag.place,
                fix="keep image and sidecar in one folder and name the file only",
            )
    scale, top = _number(path, tags, "pixelspercm"), _number(path, tags, "physicaltop")
    if scale is not None:
        check_scale(scale, path, tags["pixelspercm"].place)
        _check_length(path, tags, "scanlines", "physicalheight", scale)
        _check_length(path, tags, "pixelwidth", "physicalwidth", scale)
    places = [tags[name].place for name in ("pixelspercm", "physicaltop") if name in tags]
    core, section, image_type, scanner = (tags[name].text if name in tags else None for name in TEXT_TAGS)
    return GeotekSidecar(
        path,
        core,
        section,
        image_type,
        scanner,
        _white_level(path, tags),
        Statement("sidecar", path, ", ".join(places), scale, top),
        tags,
    )


class _Forbidden(Exception):
    """A document type: entities could grow without bound or read other files."""


def _parse(path: Path) -> dict[str, Tag]:
    """Collect the known elements that hold text, by bare name."""
    if path.stat().st_size > MAX_BYTES:
        raise SourceError(
            "sidecar over 1 MB", file=path, fix="a Geotek sidecar holds a few kB: remove this file"
        )
    parser = expat.ParserCreate()
    parser.buffer_text = True
    tags: dict[str, Tag] = {}
    open_tags: list[tuple[int, list[str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        open_tags.append((parser.CurrentLineNumber, []))

    def text(data: str) -> None:
        open_tags[-1][1].append(data)

    def end(name: str) -> None:
        line, parts = open_tags.pop()
        _keep(path, tags, Tag(name, "".join(parts).strip(), line))

    def refuse(*_: object) -> None:
        raise _Forbidden

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except _Forbidden:
        raise SourceError(
            "DOCTYPE is not allowed",
            file=path,
            place=f"line {parser.CurrentLineNumber}",
            fix="remove the DOCTYPE and ENTITY lines",
        ) from None
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise SourceError(
            f"not readable as XML: {error}",
            file=path,
            place=f"line {parser.CurrentLineNumber}",
            fix="write the file again from the scanner, in the encoding its first line names",
        ) from error
    return tags


def _keep(path: Path, tags: dict[str, Tag], tag: Tag) -> None:
    """Add a tag under its name without namespace, case, `-` and `_`, where this reader knows it."""
    name = re.sub(r"[-_]", "", tag.name.rsplit(":", 1)[-1]).casefold()
    if not tag.text or name not in PATH_TAGS + NUMBER_TAGS + TEXT_TAGS:
        return
    before = tags.setdefault(name, tag)
    if before.text != tag.text:
        raise SourceError(
            f"{tag.text!r}, but line {before.line} says {before.text!r}",
            file=path,
            place=tag.place,
            fix="leave one of the two",
        )


def _number(path: Path, tags: dict[str, Tag], name: str) -> float | None:
    if name not in tags:
        return None
    tag = tags[name]
    try:
        value = float(tag.text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ScaleError(
            f"{tag.text!r} is not a number", file=path, place=tag.place, fix="correct it, or remove the tag"
        )
    return value


def _count(path: Path, tags: dict[str, Tag], name: str) -> int | None:
    value = _number(path, tags, name)
    if value is None:
        return None
    if value < 1 or value != int(value):
        raise ScaleError(
            f"{tags[name].text!r} is not a number of pixels",
            file=path,
            place=tags[name].place,
            fix="correct it",
        )
    return int(value)


def _check_length(path: Path, tags: dict[str, Tag], pixels: str, length: str, scale: float) -> None:
    """Hold pixels / length against the stated scale: pixels are square and the numbers tell one story."""
    count, length_cm = _count(path, tags, pixels), _number(path, tags, length)
    if count is None or length_cm is None:
        return
    if length_cm <= 0 or abs(count / length_cm - scale) > SCALE_TOLERANCE * scale:
        raise ScaleError(
            f"{count} px over {length_cm:g} cm is not {scale:g} px/cm",
            file=path,
            place=tags[length].place,
            fix="correct the length or pixels-per-CM",
        )


def _white_level(path: Path, tags: dict[str, Tag]) -> int | None:
    level, bits = _count(path, tags, "whitelevel"), _count(path, tags, "bitdepth")
    if level is None and bits is not None:
        level = 2 ** CHANNEL_BITS[bits] - 1 if bits in CHANNEL_BITS else 0
    if level is not None and not 0 < level < 2**16:
        tag = tags["whitelevel" if "whitelevel" in tags else "bitdepth"]
        raise SourceError(
            f"{tag.text} is no sample depth this reads",
            file=path,
            place=tag.place,
            fix="state white-level, 1 to 65535",
        )
    return None if level == 255 else level
