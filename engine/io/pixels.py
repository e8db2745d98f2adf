"""What the samples of an image mean, and the documented rules that turn them into 8-bit RGB.

Values are kept as the device stored them: an ICC profile is named in the record and never applied, since
colour management belongs to calibration. The rules:

* 1-bit samples become 0 and 255; 16-bit samples become round(255 * value / white), `white` being the
  declared white level or, where none is declared, 65535.
* Grey is repeated into three channels. Where the smallest value is white, values are inverted.
* A palette is looked up. TIFF palettes are 16-bit and lose their low byte.
* Ink is turned into light by r = (255 - c) * (255 - k) / 255, with c and k in 0..255.
* Alpha of at least 50 % is image, less is not; it spans the full range, whatever the white level of the
  colours. Colours stored multiplied by alpha are divided by it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ImageCms

from lithostream.engine.errors import DecodeError

SIDE_CAP_PX = 1_000_000  # 1.5 m of core at 1.5 micrometres a pixel
SAMPLE_CAP = 8
# Images that cannot be streamed are held whole: 1.5 m x 10 cm of core at 600 px/cm is 540 MP, 1.6 GB as RGB.
PIXEL_CAP = 600_000_000

CM_PER_INCH = 2.54

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Colour = Literal["grey", "rgb", "cmyk", "palette"]


class Band(NamedTuple):
    """Some rows of an image as it lies in the file.

    Attributes
    ----------
    rgb : uint8 [H, W, 3]
    alpha : bool [H, W], optional
        False where there is no image.
    """

    rgb: Pixels
    alpha: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it lies in its file, before any turning; its header has been checked.

    Attributes
    ----------
    height_px, width_px : int
        Rows and columns as stored.
    orientation : int
        TIFF/EXIF orientation, 1 to 8.
    rows_per_cm, cols_per_cm : float, optional
        Pixel density down the rows and along them, where the file states one.
    notes : tuple of str
        Conversion rules that apply.
    streams : bool
        It need not be decoded whole.
    bands : callable
        Decodes from the first row to the last, into bands of the rows that it is told, the last perhaps lower;
        into one band, where it does not stream.
    """

    height_px: int
    width_px: int
    orientation: int
    rows_per_cm: float | None
    cols_per_cm: float | None
    notes: tuple[str, ...]
    streams: bool
    bands: Callable[[int], Iterator[Band]]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the samples of one pixel mean.

    Attributes
    ----------
    colour : {"grey", "rgb", "cmyk", "palette"}
        The first 1, 3, 4 or 1 samples.
    bits : {1, 8, 16}
    white : int
        Sample value of white (of full ink for "cmyk").
    inverted : bool
        The smallest value is white (for "cmyk": full ink).
    alpha : int, optional
        Which sample is alpha.
    premultiplied : bool
        Colours are stored multiplied by alpha.
    palette : uint8 [2**bits, 3], optional
    """

    colour: Colour
    bits: int
    white: int
    inverted: bool = False
    alpha: int | None = None
    premultiplied: bool = False
    palette: Pixels | None = None

    def to_band(self, samples: Samples, path: Path, place: str) -> Band:
        """Turn samples [H, W, S] into 8-bit RGB and a mask.

        Raises
        ------
        DecodeError
            A sample is brighter than the declared white level.
        """
        if self.palette is not None:
            return Band(_owned(self.palette[samples[..., 0]]), None)
        used = samples[..., : {"grey": 1, "rgb": 3, "cmyk": 4, "palette": 1}[self.colour]]
        self._check_white(used, path, place)
        eight = self._eight_bit(used, self.white)
        if self.inverted:
            eight = 255 - eight
        rgb = _from_ink(eight) if self.colour == "cmyk" else eight
        if rgb.shape[-1] == 1:
            rgb = np.repeat(rgb, 3, axis=-1)
        if self.alpha is None:
            return Band(_owned(rgb), None)
        alpha = self._eight_bit(samples[..., self.alpha], 65535)
        if self.premultiplied:
            rgb = _divided(rgb, alpha)
        return Band(_owned(rgb), alpha >= 128)

    def _check_white(self, samples: Samples, path: Path, place: str) -> None:
        if self.bits < 16 or self.white == 65535:
            return
        brightest = int(samples.max())
        if brightest > self.white:
            raise DecodeError(
                f"a sample is {brightest}, above the declared white level {self.white}",
                file=path,
                place=place,
                fix="correct the white level, or leave it out to use the full range",
            )

    def _eight_bit(self, samples: Samples, white: int) -> Pixels:
        if self.bits == 16:
            eight: Pixels = _table(white)[samples]
            return eight
        return (samples * 255 if self.bits == 1 else samples).astype(np.uint8, copy=False)


def _owned(rgb: Pixels) -> Pixels:
    """Contiguous and writable: what lies on a read buffer is neither for sure."""
    owned: Pixels = np.require(rgb, requirements=["C", "W"])
    return owned


@lru_cache(maxsize=2)
def _table(white: int) -> Pixels:
    """Return round(255 * value / white) for each 16-bit value up to `white`, uint8 [65536]."""
    values = np.minimum(np.arange(65536), white)
    return ((values * 510 + white) // (2 * white)).astype(np.uint8)


def _from_ink(ink: Pixels) -> Pixels:
    """Turn ink coverage uint8 [H, W, 4] into light uint8 [H, W, 3], without any profile."""
    paper = 255 - ink.astype(np.uint16)
    return ((paper[..., :3] * paper[..., 3:] + 127) // 255).astype(np.uint8)


def _divided(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Undo the multiplication by alpha; colours brighter than their alpha stop at white."""
    cover = np.maximum(alpha, 1).astype(np.uint32)[..., None]
    divided: Pixels = np.minimum((rgb * np.uint32(510) + cover) // (2 * cover), 255).astype(np.uint8)
    return divided


def white_note(bits: int, declared: int | None, origin: str) -> tuple[int, tuple[str, ...]]:
    """Decide which sample value is white, and say so.

    Parameters
    ----------
    bits : int
    declared : int, optional
        Stated by a person or a tag.
    origin : str
        Who stated it.
    """
    if bits != 16:
        unused = declared is not None and declared != 255
        note = f"white level {declared} ({origin}) not used: samples have {bits} bit"
        return 2**bits - 1, (note,) if unused else ()
    if declared is None:
        return 65535, ("16-bit samples scaled from the full range, white = 65535: no white level declared",)
    return declared, (f"16-bit samples scaled from white = {declared} ({origin})",)


def profile_note(profile: bytes | None, name: str | None = None) -> tuple[str, ...]:
    """Say that an ICC profile is there and was not applied."""
    if profile is None and name is None:
        return ()
    if name is None:
        try:
            found = ImageCms.ImageCmsProfile(BytesIO(profile or b"")).profile.profile_description
        except OSError:
            found = None
        name = found.strip() if found else "unnamed"
    return (f"ICC profile {name!r} not applied: device values kept",)


def damaged(path: Path, reason: str, place: str = "") -> DecodeError:
    """Build the error for a file that is broken or hostile."""
    return DecodeError(reason, file=path, place=place, fix="copy or export the image again from its source")


def unsupported(path: Path, reason: str, place: str = "") -> DecodeError:
    """Build the error for a file that may be sound but is of a kind that is not read."""
    return DecodeError(
        reason, file=path, place=place, fix="save it as 8- or 16-bit grey or RGB TIFF, PNG or JPEG"
    )


def check_header(path: Path, height_px: int, width_px: int, samples: int, most_px: int | None) -> None:
    """Refuse an impossible header before anything is allocated for it.

    Parameters
    ----------
    path : Path
    height_px, width_px, samples : int
        As declared.
    most_px : int, optional
        Pixels that the encoded bytes in the file can hold at the most, where that is known.

    Raises
    ------
    DecodeError
    """
    size = f"{height_px} x {width_px} px (rows x columns)"
    if height_px < 1 or width_px < 1:
        raise damaged(path, f"header declares {size}: nothing to read", "header")
    if max(height_px, width_px) > SIDE_CAP_PX:
        raise damaged(path, f"header declares {size}: a side is over the limit of {SIDE_CAP_PX} px", "header")
    if not 1 <= samples <= SAMPLE_CAP:
        raise unsupported(
            path, f"header declares {samples} samples a pixel; 1 to {SAMPLE_CAP} are read", "header"
        )
    if most_px is not None and height_px * width_px > most_px:
        reason = f"header declares {size}, more than the data in the file can hold ({most_px} px)"
        raise damaged(path, reason, "header")


def check_whole(path: Path, height_px: int, width_px: int, reason: str) -> None:
    """Refuse to hold more pixels at once than `PIXEL_CAP`."""
    if height_px * width_px > PIXEL_CAP:
        raise DecodeError(
            f"{height_px} x {width_px} px would be held whole ({reason}); the limit is {PIXEL_CAP} px",
            file=path,
            place="header",
            fix="save it as a TIFF in strips whose rows run down-core, or at a lower resolution",
        )


def known_orientation(value: int, path: Path) -> tuple[int, tuple[str, ...]]:
    """Check an orientation tag; 0, which some software writes, states nothing.

    Raises
    ------
    DecodeError
    """
    if not 0 <= value <= 8:
        raise damaged(path, f"orientation is {value}; 1 to 8 are defined", "orientation tag")
    if value < 2:
        return 1, ()
    return value, (f"orientation tag {value} applied",)
