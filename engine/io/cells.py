"""Cells of tables that people made: what is a number, and what stands for none."""

import numpy as np

MISSING_NUMBERS = (-9999.0, -99999.0, -999.25)
MISSING_WORDS = ("", "na", "n/a", "nan", "null", "none", "nd", "n.d.", "-", "*")


def number_of(text: str) -> float | None:
    """Read a finite number; None where the text is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and "_" not in text else None  # which only Python reads
