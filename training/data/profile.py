"""Rows of depth: what is known of labelled ones, and the colour of all rows around them."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lithostream.engine.core.section import Section

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Profile(NamedTuple):
    """Colour along depth, with and without labels: P rows in order of section, then of depth.

    Attributes
    ----------
    section : int64 [P]
    place : int64 [P]
        Number of the row in its section, from 0; a number that is missing is a row without core.
    colour : float64 [P, C]
        Mean over the core of the row.
    """

    section: Ints
    place: Ints
    colour: Floats


class Rows(Protocol):
    """R labelled rows, whatever they were made from; attributes as in `TileSet`."""

    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def sections(self) -> tuple[Section, ...]: ...  # noqa: D102
    @property
    def labels(self) -> Floats: ...  # noqa: D102
    @property
    def measured(self) -> Floats: ...  # noqa: D102
    @property
    def section(self) -> Ints: ...  # noqa: D102
    @property
    def top_cm(self) -> Floats: ...  # noqa: D102
    @property
    def base_cm(self) -> Floats: ...  # noqa: D102
    @property
    def place(self) -> Ints: ...  # noqa: D102
    @property
    def profile(self) -> Profile: ...  # noqa: D102

    def mean_colour(self) -> Floats:
        """Mean of each channel over each row, float64 [R, C]."""
        ...


def in_profile(rows: Rows) -> Ints:
    """Place of each labelled row in the profile, int64 [R]."""
    profile = rows.profile
    height = int(max(profile.place.max(), rows.place.max())) + 1
    return np.searchsorted(profile.section * height + profile.place, rows.section * height + rows.place)


def on_scale(values: Floats, logarithmic: Bools) -> Floats:
    """Values [R, T] on the scale they are learned and scored on; NaN where a logarithm does not exist."""
    positive = np.where(logarithmic & (values > 0), values, np.nan)
    return np.where(logarithmic, np.log(positive), values)
