"""Image names of USGS core releases, as `2019_643_FA_GC01_01.tif`."""

import re
from dataclasses import dataclass

_NAME = re.compile(
    r"(?P<year>\d{4})_(?P<number>\d{3})_(?P<kind>FA)_(?P<core>[A-Z]{1,3}\d{1,3}[A-Z]?)_(?P<section>\d{2})",
    re.IGNORECASE,
)


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
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    survey = f"{match['year']}-{match['number']}-{match['kind'].upper()}"
    return UsgsName(survey, match["core"].upper(), match["section"])
