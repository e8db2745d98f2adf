"""IODP section image names, as `397T-U1584A-3R-1-A_SHLF11708131_20220916071808.tif`."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

# Form from the README of IODP's SectionPhotoRenamer.
_NAME = re.compile(
    r"(?:EXP[^_]*_(?:[^_]*_)?)?"
    r"(?P<expedition>\d+[A-Z]?)-(?P<site>[A-Z]?\d+)(?P<hole>[A-Z])-(?P<core>\d+)(?P<type>[A-Z])"
    r"-(?P<section>\d+|CC)(?:-(?P<half>[AW]))?"
    r"_(?P<text_id>(?:SHLF|SECT)\d+)_(?P<time>\d{14})"
    r"(?:_(?P<angle>0|90|180|270))?(?:_(?P<composite>WRLSC?))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class IodpName:
    """What the name of an IODP section image says.

    Attributes
    ----------
    expedition : str
        As `397T`.
    hole : str
        Site and hole, as `U1584A`.
    core : str
        Number and type, as `3R`.
    section : str
        Number, or `CC` for the core catcher.
    half : str or None
        `A` archive, `W` working.
    text_id : str
        Label of the section in the laboratory database.
    taken : datetime
        Time of the scan, UTC.
    angle_deg : int or None
        Which face of a whole round.
    whole_round : {"WRLS", "WRLSC"} or None
        One face, or the composite of all.
    """

    expedition: str
    hole: str
    core: str
    section: str
    half: str | None
    text_id: str
    taken: datetime
    angle_deg: int | None
    whole_round: str | None


def parse_iodp_name(stem: str) -> IodpName | None:
    """Read a file name without its extension; None where it is not of this form or no real date."""
    match = _NAME.fullmatch(stem.upper())
    if match is None:
        return None
    try:
        taken = datetime.strptime(match["time"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return IodpName(
        expedition=match["expedition"],
        hole=match["site"] + match["hole"],
        core=match["core"] + match["type"],
        section=match["section"],
        half=match["half"],
        text_id=match["text_id"],
        taken=taken,
        angle_deg=None if match["angle"] is None else int(match["angle"]),
        whole_round=match["composite"],
    )
