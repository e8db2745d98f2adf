"""Itrax folders: one scan per folder, with a document that says where it began and ended.

The optical image is landscape and runs from the bottom of the section to its top: pixel `px` of `n` along the
long axis has its centre at `end - px * (end - start) / (n - 1)` mm, where start and end are the document's
`Optical Start` and `Optical End`. (itraxR flips it the same way; XRF profiles match the colour only flipped.)
Documents before about 2010 name no optical positions. Their pixels measure 0.49 mm (the Itrax of Ardley and
Yanou Lakes, 2008), and the image starts where the scan does.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lithostream.engine.core.section import DepthAxis
from lithostream.engine.errors import ScaleError, SourceError
from lithostream.engine.io.images import SUFFIXES
from lithostream.engine.io.scale import Statement

PROFILE_MM_PER_PX = 0.49
# The image overshoots the scan at its end; measured -2.1 % to +2.9 % over seven sections.
PROFILE_TOLERANCE = 0.05
MM_PER_CM = 10.0
RAW_OPTICAL = ("optical.tif", "scan2008_optical.tif", "optical_lowres.tif")

_DOCUMENT = re.compile(r"(?P<scan>.+_)?document(?P<kind>_.+|\d*)\.txt", re.IGNORECASE)
_STRETCHED = re.compile(r"(.+_)?optical\d+\.tif", re.IGNORECASE)
_RADIOGRAPH = re.compile(r"(.+_)?radiograph.*\.tif", re.IGNORECASE)
_MARKERS = (b"Section name", b"Start coordinate")
_POSITIONS = (("Start coordinate", "Stop coordinate"), ("Optical Start", "Optical End"))


@dataclass(frozen=True, slots=True)
class ItraxDocument:
    """What an Itrax document says; positions in mm along the core.

    Attributes
    ----------
    path : Path
    core, section : str, optional
    scan_mm : (float, float)
        Where the scan starts and stops.
    optical_mm : (float, float), optional
        Centres of the outermost optical pixels.
    optical_line : int
        Line of the optical positions; 0 where there are none.
    """

    path: Path
    core: str | None
    section: str | None
    scan_mm: tuple[float, float]
    optical_mm: tuple[float, float] | None
    optical_line: int

    @property
    def core_cm(self) -> tuple[float, float]:
        """Widest range that any scan of this folder measured: beyond it the camera sees bed, card and caps."""
        scans = [read_document(path).scan_mm for path in _documents(self.path.parent)]
        return min(scan[0] for scan in scans) / MM_PER_CM, max(scan[1] for scan in scans) / MM_PER_CM


def is_itrax_folder(folder: Path) -> bool:
    """Recognise an Itrax scan by its document."""
    return any(_is_document(path) for path in _documents(folder))


def colour_image(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Choose the raw colour image of a folder; notes say what was left aside.

    Raises
    ------
    SourceError
        There is none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    by_name = {path.name.casefold(): path for path in files}
    raw = [by_name[name] for name in RAW_OPTICAL if name in by_name]
    if not raw:
        raise SourceError(
            "Itrax folder without a colour image (optical.tif)",
            file=folder,
            fix="copy optical.tif from the scanner into it, or leave this folder out",
        )
    images = [path for path in files if path.suffix.casefold() in SUFFIXES and path != raw[0]]
    left = [f"{path.name} is {_derived(path) or 'a further image'}: not used" for path in images]
    return raw[0], tuple(left)


def document_of(image: Path) -> ItraxDocument | None:
    """Read the document of the scan that an image was made in; None for an image no Itrax wrote.

    Raises
    ------
    SourceError
        The image is a radiograph or an edited copy.
    ScaleError
        The document is missing, or its positions are missing, not numbers, or not increasing.
    """
    reason = _derived(image)
    raw = image.name.casefold() in RAW_OPTICAL
    if not (raw or reason) or not is_itrax_folder(image.parent):
        return None
    if reason:
        raise SourceError(f"this is {reason}", file=image, fix="name the folder, or its raw optical image")
    return read_document(_same_scan(image, _documents(image.parent)))


def read_document(path: Path) -> ItraxDocument:
    """Read a document (latin-1, tab-separated).

    Raises
    ------
    ScaleError
        Naming the line.
    """
    rows = [line.split("\t") for line in path.read_text(encoding="latin-1").split("\n")]
    scan, optical = (_span(path, rows, *labels) for labels in _POSITIONS)
    if scan is None:
        raise ScaleError(
            "no line 'Start coordinate ... Stop coordinate'",
            file=path,
            fix="copy the document from the scanner again",
        )
    _, core, section, *_ = [*(rows[1] if len(rows) > 1 else []), "", "", ""]
    optical_mm, optical_line = optical or (None, 0)
    return ItraxDocument(
        path, core.strip() or None, section.strip() or None, scan[0], optical_mm, optical_line
    )


def statement(image: Path, document: ItraxDocument, length_px: int) -> Statement:
    """Say scale and top of a raw colour image.

    Parameters
    ----------
    image : Path
    document : ItraxDocument
        Of the same scan.
    length_px : int
        Pixels along the long axis.

    Raises
    ------
    ScaleError
        Where the instrument profile cannot be true of this scan.
    """
    if document.optical_mm and length_px > 1:
        start, end = document.optical_mm
        mm_per_px = (end - start) / (length_px - 1)
        place = f"line {document.optical_line}, Optical Start and End"
        top_cm = (start - mm_per_px / 2) / MM_PER_CM
        return Statement("sidecar", document.path, place, MM_PER_CM / mm_per_px, top_cm)
    if not profile_fits(document, length_px):
        start, stop = document.scan_mm
        raise ScaleError(
            f"{length_px} px of {PROFILE_MM_PER_PX} mm do not cover the scan from {start:g} to {stop:g} mm",
            file=image,
            fix="this Itrax has other pixels: state px_per_cm in a manifest.toml",
        )
    place = f"{PROFILE_MM_PER_PX} mm per pixel from the Start coordinate"
    top_cm = document.scan_mm[0] / MM_PER_CM
    return Statement("instrument profile", document.path, place, MM_PER_CM / PROFILE_MM_PER_PX, top_cm)


def profile_fits(document: ItraxDocument, length_px: int) -> bool:
    """Tell whether pixels of the profile's size make the image as long as the scan."""
    start, stop = document.scan_mm
    return abs(length_px * PROFILE_MM_PER_PX / (stop - start) - 1) <= PROFILE_TOLERANCE


def profile_note(document: ItraxDocument, length_px: int) -> str:
    """Say how far the end that the profile gives lies from the end of the scan."""
    start, stop = document.scan_mm
    end = start + length_px * PROFILE_MM_PER_PX
    return (
        f"{document.path.name} has no optical positions: at {PROFILE_MM_PER_PX} mm per pixel the image ends at "
        f"{end:.1f} mm, the scan at {stop:g} mm"
    )


def depth_axis(height_px: int, width_px: int) -> DepthAxis:
    """Depth runs along the long side."""
    return "x" if width_px > height_px else "y"


def _documents(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _DOCUMENT.fullmatch(path.name))


def _is_document(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    return any(marker in head for marker in _MARKERS)


def _same_scan(image: Path, documents: list[Path]) -> Path:
    """Find the document with the image's prefix; of several, the plain one, then XRF, then any."""
    prefix = image.name[: image.name.casefold().index("optical")].casefold()
    found: list[tuple[int, str, Path]] = []
    for path in documents:
        match = _DOCUMENT.fullmatch(path.name)
        if match is not None and (match["scan"] or "").casefold() == prefix:
            kind = match["kind"].casefold()
            found.append((("", "_xrf").index(kind) if kind in ("", "_xrf") else 2, path.name, path))
    if not found:
        raise ScaleError(
            f"no {prefix}document.txt beside it",
            file=image,
            fix="copy the document of this scan from the scanner",
        )
    return min(found)[2]


def _derived(image: Path) -> str:
    """Say what a file is that is no raw colour image; empty for any other."""
    if _STRETCHED.fullmatch(image.name):
        return "a contrast-stretched, cropped copy"
    return "a radiograph, not a colour image" if _RADIOGRAPH.fullmatch(image.name) else ""


def _span(path: Path, rows: list[list[str]], first: str, last: str) -> tuple[tuple[float, float], int] | None:
    """Find `first <tab> number <tab> last <tab> number`; None where no line starts with `first`."""
    for number, cells in enumerate(rows, start=1):
        if cells[0].strip() != first:
            continue
        cells = [cell.strip() for cell in cells]
        place = f"line {number}, {first}"
        fix = "copy the document from the scanner again, or correct the line"
        try:
            start, stop = float(cells[1]), float(cells[3])
        except (IndexError, ValueError):
            start = stop = float("nan")
        if not stop - start < float("inf") or cells[2] != last:
            raise ScaleError(f"no pair of numbers: {' '.join(cells)!r}", file=path, place=place, fix=fix)
        if stop <= start:
            raise ScaleError(
                f"{last} {stop:g} mm is not beyond {start:g} mm", file=path, place=place, fix=fix
            )
        return (start, stop), number
    return None
