"""Units of predictors: which spellings mean the same."""

_SAME = {
    "mg/kg": "ppm",
    "g/t": "ppm",
    "ug/g": "ppm",
    "ug/kg": "ppb",
    "mg/t": "ppb",
    "pct": "%",
    "percent": "%",
    "wt%": "%",
    "wt.%": "%",
    "metre": "m",
    "meter": "m",
    "metres": "m",
    "meters": "m",
    "1": "",
    "-": "",
    "none": "",
    "unitless": "",
    "dimensionless": "",
}


def same_unit(one: str, other: str) -> bool:
    """Tell whether two spellings mean one unit; case, blanks and the kind of micro sign do not count."""
    return _plain(one) == _plain(other)


def _plain(unit: str) -> str:
    text = unit.strip().lower().replace("µ", "u").replace("μ", "u").replace(" ", "")
    return _SAME.get(text, text)
