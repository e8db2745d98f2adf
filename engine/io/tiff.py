"""TIFF and BigTIFF headers: what lies where and what it means, checked before anything is decoded."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lithostream.engine.io.pixels import (
    Colour,
    Meaning,
    Picture,
    check_header,
    check_whole,
    damaged,
    known_orientation,
    profile_note,
    unsupported,
    white_note,
)
from lithostream.engine.io.tiff_bands import bands
from lithostream.engine.io.tiff_layout import JPEG, MOST_GROWTH, Layout
from lithostream.engine.io.tiff_strips import split_rows
from lithostream.engine.io.tiff_tags import Tag, Tags

COLOURS: dict[int, tuple[Colour, int]] = {
    0: ("grey", 1),
    1: ("grey", 1),
    2: ("rgb", 3),
    3: ("palette", 1),
    5: ("cmyk", 4),
    6: ("rgb", 3),
}
YCBCR = 6


def open_tiff(path: Path, white_level: int | None) -> Picture:
    """Read and check a TIFF header.

    Raises
    ------
    DecodeError
        Damaged, hostile, ambiguous or of a kind that is not read.
    """
    tags = Tags(path)
    _refuse_unread(tags)
    meaning, notes = _meaning(tags, white_level)
    layout = layout_of(tags, meaning.bits, np.dtype(np.uint8 if meaning.bits < 16 else np.uint16))
    orientation, turned = known_orientation(tags.number(Tag.ORIENTATION, 1), path)
    layout = split_rows(layout)
    return Picture(
        layout.height_px,
        layout.width_px,
        orientation,
        tags.density(Tag.Y_RESOLUTION),
        tags.density(Tag.X_RESOLUTION),
        notes + profile_note(tags.blob(Tag.ICC_PROFILE)) + turned,
        streams=True,
        bands=lambda rows: bands(layout, meaning, rows),
    )


def _refuse_unread(tags: Tags) -> None:
    """Refuse kinds of TIFF that are not read, by their tags."""
    bits, form = tags.number(Tag.BITS, 1), tags.number(Tag.SAMPLE_FORMAT, 1)
    compression, photometric = tags.number(Tag.COMPRESSION, 1), tags.number(Tag.PHOTOMETRIC)
    predictor, samples = tags.number(Tag.PREDICTOR, 1), tags.number(Tag.SAMPLES, 1)
    jpeg = compression == JPEG
    plain = (photometric, samples) in {(0, 1), (1, 1), (2, 3), (YCBCR, 3)}
    refusals = {
        f"samples of format {form} (1 is unsigned integer; float, signed and complex are not read)": form
        not in (1, 4),
        f"{bits}-bit samples; 1, 8 and 16 are read": bits not in (1, 8, 16),
        f"compression {compression}": compression not in MOST_GROWTH,
        f"colour space {photometric} (such as Lab or a raw sensor mosaic)": photometric not in COLOURS,
        "YCbCr without JPEG compression": photometric == YCBCR and not jpeg,
        f"predictor {predictor} on {bits}-bit samples": predictor
        not in ((1,) if bits == 1 or jpeg else (1, 2)),
        "JPEG strips of another kind than 8-bit grey or RGB": jpeg and not (plain and bits == 8),
        "JPEG strips with separate planes": jpeg and samples > 1 and tags.number(Tag.PLANAR, 1) != 1,
        "reversed bit order": tags.number(Tag.FILL_ORDER, 1) != 1,
        "inks other than cyan, magenta, yellow, black": photometric == 5 and tags.number(Tag.INK_SET, 1) != 1,
        "more than one depth plane": tags.number(Tag.IMAGE_DEPTH, 1) != 1,
        "a palette and more than one sample": photometric == 3 and samples != 1,
        f"planar configuration {tags.number(Tag.PLANAR, 1)}": tags.number(Tag.PLANAR, 1) not in (1, 2),
    }
    for reason, refused in refusals.items():
        if refused:
            raise unsupported(tags.path, f"not read: {reason}", "header")


def _meaning(tags: Tags, white_level: int | None) -> tuple[Meaning, tuple[str, ...]]:
    bits, photometric = tags.number(Tag.BITS, 1), tags.number(Tag.PHOTOMETRIC)
    colour, needed = COLOURS[photometric]
    extra = tags.numbers(Tag.EXTRA_SAMPLES)
    surplus = tags.number(Tag.SAMPLES, 1) - needed
    if surplus < 0 or (extra.size and extra.size != surplus):
        reason = f"{surplus} samples beyond those of {colour}, {extra.size} described"
        raise damaged(tags.path, reason, "tag EXTRA_SAMPLES")
    kinds = extra.tolist()
    alpha = next((index for index, kind in enumerate(kinds) if kind in (1, 2)), None)
    white, notes = _white(tags, bits, white_level)
    palette, palette_notes = _palette(tags, bits) if colour == "palette" else (None, ())
    dropped = surplus - (alpha is not None)
    rules = {
        "1-bit samples become 0 and 255": bits == 1 and palette is None,
        "grey repeated into three channels": colour == "grey",
        "smallest value is white: inverted": photometric == 0,
        "CMYK ink to RGB by (255 - c)(255 - k) / 255": colour == "cmyk",
        "alpha under 50 % is not image": alpha is not None,
        "colours divided by alpha": alpha is not None and kinds[alpha] == 1,
        f"{dropped} extra samples without a stated meaning dropped": dropped > 0,
    }
    meaning = Meaning(
        colour,
        bits,
        white,
        inverted=photometric == 0,
        alpha=None if alpha is None else needed + alpha,
        premultiplied=alpha is not None and kinds[alpha] == 1,
        palette=palette,
    )
    return meaning, notes + palette_notes + tuple(rule for rule, applies in rules.items() if applies)


def _white(tags: Tags, bits: int, white_level: int | None) -> tuple[int, tuple[str, ...]]:
    """Find the white level: as declared, then by tag.

    MaxSampleValue is defined as a statistic (TIFF 6.0, section 8): it counts as a white level only where
    it is 2**n - 1, the depth of a sensor.
    """
    if white_level is not None or bits != 16:
        return white_note(bits, white_level, "declared")
    if Tag.WHITE_LEVEL in tags:
        return white_note(bits, _sample_value(tags, Tag.WHITE_LEVEL), "tag WhiteLevel")
    if Tag.MAX_SAMPLE_VALUE in tags:
        highest = _sample_value(tags, Tag.MAX_SAMPLE_VALUE)
        if not highest & (highest + 1):
            return white_note(bits, highest, "tag MaxSampleValue")
        white, notes = white_note(bits, None, "")
        return white, (*notes, f"tag MaxSampleValue {highest} taken as a statistic, not as a white level")
    return white_note(bits, None, "")


def _sample_value(tags: Tags, tag: Tag) -> int:
    value = tags.number(tag)
    if not 1 <= value <= 65535:
        raise damaged(tags.path, f"{value} is no 16-bit sample value", f"tag {tag.name}")
    return value


def _palette(tags: Tags, bits: int) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return the colour map as uint8 [2**bits, 3]."""
    entries = tags.numbers(Tag.COLOR_MAP)
    if entries.size != 3 << bits:
        raise damaged(tags.path, f"{entries.size} colour map entries, not {3 << bits}", "tag COLOR_MAP")
    table = entries.reshape(3, -1).T
    # The rule of libtiff: a map without any value above 255 was written in 8 bits.
    if table.max() < 256:
        return table.astype(np.uint8), ("palette looked up; its 8-bit colours kept",)
    return (table >> 8).astype(np.uint8), ("palette looked up; low bytes of its 16-bit colours dropped",)


def layout_of(tags: Tags, bits: int, dtype: np.dtype[np.generic]) -> Layout:
    """Lay out the strips or tiles of samples of a type, and check that the file holds them.

    Raises
    ------
    DecodeError
        It does not, or there are more pixels in one of them than are held at once.
    """
    path, tiled = tags.path, Tag.TILE_WIDTH in tags
    height, width = tags.number(Tag.HEIGHT), tags.number(Tag.WIDTH)
    samples, compression = tags.number(Tag.SAMPLES, 1), tags.number(Tag.COMPRESSION, 1)
    offsets = tags.numbers(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS)
    counts = tags.numbers(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES)
    held = int(np.clip(counts, 0, path.stat().st_size).sum())
    check_header(path, height, width, samples, held * MOST_GROWTH[compression] * 8 // max(bits * samples, 1))
    rows = tags.number(Tag.TILE_HEIGHT) if tiled else min(tags.number(Tag.ROWS_PER_STRIP, height), height)
    cols = tags.number(Tag.TILE_WIDTH) if tiled else width
    if rows < 1 or cols < 1:
        raise damaged(path, f"a {'tile' if tiled else 'strip'} of {rows} x {cols} px", "header")
    check_whole(path, rows, max(cols, width), f"in one {'row of tiles' if tiled else 'strip'}")
    separate = tags.number(Tag.PLANAR, 1) == 2 and samples > 1
    shape = (samples if separate else 1, -(-height // rows), -(-width // cols))
    if not offsets.size == counts.size == np.prod(shape):
        reason = f"{offsets.size} offsets and {counts.size} sizes for {np.prod(shape)} strips or tiles"
        raise damaged(path, reason, "header")
    layout = Layout(
        path=path,
        width_px=width,
        samples=1 if separate else samples,
        dtype=dtype.newbyteorder(tags.byteorder),
        bits=bits,
        compression=compression,
        differenced=tags.number(Tag.PREDICTOR, 1) == 2,
        edges=np.append(np.arange(0, height, rows), height),
        tile=(rows, cols) if tiled else None,
        offsets=offsets.reshape(shape),
        counts=counts.reshape(shape),
        numbers=np.arange(offsets.size).reshape(shape),
        jpeg_tables=tags.blob(Tag.JPEG_TABLES),
        ycbcr=tags.number(Tag.PHOTOMETRIC) == YCBCR,
    )
    layout.check_extent()
    return layout
