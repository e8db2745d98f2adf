"""Tone curves of ICC profiles: how each channel of a matrix profile follows light (ICC.1:2022, 10.6 and 10.18)."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.errors import DecodeError

Floats = npt.NDArray[np.float64]
CURVES = (b"rTRC", b"gTRC", b"bTRC")
PARAMETERS = (1, 3, 4, 5, 7)  # of the function types 0 to 4


def tone_curves(profile: bytes, path: Path) -> Floats:
    """Return the linear light of each 8-bit sample value, float64 [256, 3].

    The colorants of the profile are not used: a card says what the colours are.

    Raises
    ------
    DecodeError
        No matrix profile of an RGB device, or a damaged one.
    """
    try:
        if profile[36:40] != b"acsp" or profile[16:20] != b"RGB ":
            raise _refused(path, "not an ICC profile of an RGB device")
        (count,) = struct.unpack_from(">I", profile, 128)
        tags = dict(_tag(profile, 132 + 12 * entry) for entry in range(min(count, 100)))
        if any(name not in tags for name in CURVES):
            raise _refused(path, "its colours are tables, not curves and a matrix: no curve to linearise by")
        return np.stack([_curve(tags[name], path) for name in CURVES], axis=1)
    except struct.error as error:
        raise _refused(path, "it is cut short") from error


def _tag(profile: bytes, at: int) -> tuple[bytes, bytes]:
    name, start, length = struct.unpack_from(">4sII", profile, at)
    return name, profile[start : start + length]


def _curve(tag: bytes, path: Path) -> Floats:
    samples = np.arange(256) / 255.0
    kind = tag[:4]
    if kind == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return samples
        points = np.array(struct.unpack_from(f">{count}H", tag, 12), dtype=np.float64)
        if count == 1:  # an exponent of 8 bits before and 8 after the point
            return np.asarray(samples ** (points[0] / 256.0), dtype=np.float64)
        return np.interp(samples, np.linspace(0.0, 1.0, count), points / 65535.0)
    (form,) = struct.unpack_from(">H", tag, 8)
    if kind != b"para" or form >= len(PARAMETERS):
        raise _refused(path, f"a curve of type {kind!r}")
    given = np.array(struct.unpack_from(f">{PARAMETERS[form]}i", tag, 12)) / 65536.0
    return _parametric(samples, form, given)


def _parametric(x: Floats, form: int, given: Floats) -> Floats:
    """Table 68 of ICC.1:2022: (a x + b)^g + e from d on, c x + f below."""
    g, a, b, c, d, e, f = np.concatenate([given, np.zeros(7 - len(given))])
    if form == 0:
        a, d = 1.0, 0.0
    elif form in (1, 2):  # below -b / a the value is a constant: 0, or what type 2 names c
        e = f = c if form == 2 else 0.0
        c, d = 0.0, -b / a
    above = np.clip(a * x + b, 0.0, None) ** g + e
    return np.asarray(np.where(x >= d, above, c * x + f), dtype=np.float64)


def _refused(path: Path, reason: str) -> DecodeError:
    return DecodeError(
        reason,
        file=path,
        place="ICC profile",
        fix='name the curve instead: transfer = "srgb", "linear", an exponent, or a table of 256 rows (.csv)',
    )
