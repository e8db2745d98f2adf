"""Images that are sound: every kind that is read, each against values worked out another way."""

import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import tifffile
from PIL import Image, ImageCms

from lithostream.engine.io import tiff_strips
from lithostream.engine.io.images import SUFFIXES, open_image, read_image

Array = npt.NDArray[np.generic]
WHITE_NOTE = "16-bit samples scaled from the full range, white = 65535: no white level declared"


@pytest.fixture
def picture(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    return rng.integers(0, 256, (37, 29, 3), dtype=np.uint8)


@pytest.fixture
def smooth() -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:48, :32]
    return np.stack([x * 7, y * 5, x + y], axis=-1).astype(np.uint8)


def write_tiff(path: Path, array: Array, **options: object) -> Path:
    options.setdefault("photometric", "rgb" if array.ndim == 3 else "minisblack")
    tifffile.imwrite(path, array, metadata=None, **options)  # type: ignore[arg-type]
    return path


def notes(path: Path) -> str:
    return "; ".join(open_image(path).conversions)


def scaled(samples: Array, white: int) -> npt.NDArray[np.uint8]:
    return np.floor(samples.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"rowsperstrip": 5}, {"tile": (16, 32)}, {"planarconfig": "separate"}]
)
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("depth", [8, 16])
def test_lossless_tiff(
    tmp_path: Path,
    picture: npt.NDArray[np.uint8],
    order: str,
    bigtiff: bool,
    options: dict[str, object],
    compression: str | None,
    depth: int,
) -> None:
    stored: Array = picture if depth == 8 else picture.astype(np.uint16) * 257
    if "planarconfig" in options:
        stored = np.ascontiguousarray(np.moveaxis(stored, -1, 0))
    predictor = compression in ("lzw", "zlib", "zstd")
    path = write_tiff(
        tmp_path / "a.tif",
        stored,
        byteorder=order,
        bigtiff=bigtiff,
        compression=compression,
        predictor=predictor,
        **options,
    )
    rgb, alpha = read_image(path)
    np.testing.assert_array_equal(rgb, picture)
    assert alpha is None
    assert rgb.flags.writeable and rgb.flags.c_contiguous
    assert open_image(path).conversions == ((WHITE_NOTE,) if depth == 16 else ())


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 16}, {"tile": (16, 16)}])
def test_jpeg_in_tiff(
    tmp_path: Path, smooth: npt.NDArray[np.uint8], subsampling: tuple[int, int], options: dict[str, object]
) -> None:
    path = write_tiff(tmp_path / "a.tif", smooth, compression="jpeg", subsampling=subsampling, **options)
    rgb, _ = read_image(path)
    np.testing.assert_array_equal(rgb, tifffile.imread(path))
    assert np.abs(rgb.astype(int) - smooth).mean() < 3


def test_jpeg_in_tiff_with_shared_tables_keeps_its_colours(
    tmp_path: Path, smooth: npt.NDArray[np.uint8]
) -> None:
    # Pillow writes RGB components without a colour transform, tables in a tag, through libtiff.
    path = tmp_path / "a.tif"
    Image.fromarray(smooth).save(path, compression="jpeg", quality=95)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        assert (page.photometric, 347 in page.tags) == (2, True)
        expected = page.asarray()
    np.testing.assert_array_equal(read_image(path)[0], expected)


def test_grey_jpeg_in_tiff(tmp_path: Path, smooth: npt.NDArray[np.uint8]) -> None:
    path = write_tiff(tmp_path / "a.tif", smooth[..., 0], compression="jpeg", rowsperstrip=16)
    rgb, _ = read_image(path)
    assert np.abs(rgb.astype(int) - smooth[..., :1]).max() <= 8


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_grey_is_repeated(tmp_path: Path, picture: npt.NDArray[np.uint8], kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    Image.fromarray(picture[..., 0]).save(path)
    rgb, _ = read_image(path)
    np.testing.assert_array_equal(rgb, picture[..., [0, 0, 0]])
    assert open_image(path).conversions == ("grey repeated into three channels",)


@pytest.mark.parametrize("depth", [8, 16])
def test_smallest_value_is_white(tmp_path: Path, depth: int) -> None:
    top = 2**depth - 1
    stored = np.array([[0, top], [top // 5, top]], f"u{depth // 8}")
    path = write_tiff(tmp_path / "a.tif", stored, photometric="miniswhite")
    rgb, _ = read_image(path)
    assert rgb[..., 0].tolist() == [[255, 0], [204, 0]]
    assert "inverted" in notes(path)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("width", [16, 29])
def test_one_bit(tmp_path: Path, picture: npt.NDArray[np.uint8], photometric: str, width: int) -> None:
    bits = picture[:, :width, 0] > 127
    path = write_tiff(tmp_path / "a.tif", bits, photometric=photometric, rowsperstrip=6)
    expected = np.where(bits == (photometric == "minisblack"), 255, 0)
    np.testing.assert_array_equal(read_image(path)[0][..., 1], expected)
    assert "1-bit samples become 0 and 255" in notes(path)


def test_full_range_of_16_bit_rounds_to_nearest(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb, _ = read_image(write_tiff(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(rgb[..., 0], scaled(values, 65535))


@pytest.mark.parametrize("white", [1, 1023, 4095, 4000])
def test_declared_white_level(tmp_path: Path, white: int) -> None:
    values = np.linspace(0, white, 4096).astype(np.uint16).reshape(64, 64)
    path = write_tiff(tmp_path / "a.tif", values)
    source = open_image(path, white_level=white)
    np.testing.assert_array_equal(read_image(path, white_level=white)[0][..., 2], scaled(values, white))
    assert f"16-bit samples scaled from white = {white} (declared)" in source.conversions


@pytest.mark.parametrize(("tag", "name"), [(281, "MaxSampleValue"), (50717, "WhiteLevel")])
def test_white_level_of_a_tag(tmp_path: Path, tag: int, name: str) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = write_tiff(tmp_path / "a.tif", values, extratags=[(tag, "H", 1, 4095, True)])
    np.testing.assert_array_equal(read_image(path)[0][..., 0], scaled(values, 4095))
    assert f"white = 4095 (tag {name})" in notes(path)


def test_highest_value_of_the_file_is_no_white_level(tmp_path: Path) -> None:
    values = np.full((4, 4), 3817, np.uint16)
    path = write_tiff(tmp_path / "a.tif", values, extratags=[(281, "H", 1, 3817, True)])
    assert read_image(path)[0].max() == 15
    assert "MaxSampleValue 3817 taken as a statistic" in notes(path)


def test_white_level_of_8_bit_samples_is_recorded_as_unused(
    tmp_path: Path, picture: npt.NDArray[np.uint8]
) -> None:
    path = write_tiff(tmp_path / "a.tif", picture)
    source = open_image(path, white_level=4095)
    assert source.conversions == ("white level 4095 (declared) not used: samples have 8 bit",)
    np.testing.assert_array_equal(read_image(path, white_level=4095)[0], picture)


@pytest.mark.parametrize(("depth", "note"), [(16, "low bytes"), (8, "8-bit colours kept")])
def test_tiff_palette(tmp_path: Path, rng: np.random.Generator, depth: int, note: str) -> None:
    indices = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    table = rng.integers(0, 2**depth, (3, 256)).astype(np.uint16)
    path = write_tiff(tmp_path / "a.tif", indices, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_image(path)[0], (table >> (depth - 8)).T[indices])
    assert note in notes(path)


def test_cmyk_ink_becomes_light(tmp_path: Path) -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 51, 102, 51], [9, 9, 9, 255]]], np.uint8)
    path = write_tiff(tmp_path / "a.tif", ink, photometric="separated")
    expected = [[255, 255, 255], [0, 255, 255], [204, 163, 122], [0, 0, 0]]
    assert read_image(path)[0][0].tolist() == expected
    assert "CMYK ink to RGB" in notes(path)


@pytest.mark.parametrize("kind", ["tif", "png"])
def test_alpha_of_half_and_more_is_image(tmp_path: Path, kind: str) -> None:
    rgba = np.full((1, 4, 4), 90, np.uint8)
    rgba[0, :, 3] = [0, 127, 128, 255]
    path = tmp_path / f"a.{kind}"
    Image.fromarray(rgba).save(path)
    rgb, alpha = read_image(path)
    assert alpha is not None and alpha.tolist() == [[False, False, True, True]]
    assert (rgb == 90).all()
    assert "alpha under 50 % is not image" in notes(path)


def test_alpha_spans_the_full_range_whatever_the_white_level(tmp_path: Path) -> None:
    rgba = np.array([[[4095, 0, 0, 65535], [0, 0, 0, 32767]]], np.uint16)
    path = write_tiff(tmp_path / "a.tif", rgba, extrasamples=["unassalpha"])
    rgb, alpha = read_image(path, white_level=4095)
    assert rgb[0].tolist() == [[255, 0, 0], [0, 0, 0]]
    assert alpha is not None and alpha.tolist() == [[True, False]]


def test_colours_multiplied_by_alpha_are_divided(tmp_path: Path) -> None:
    rgba = np.array([[[100, 50, 0, 200], [7, 7, 7, 255], [9, 9, 9, 0]]], np.uint8)
    path = write_tiff(tmp_path / "a.tif", rgba, extrasamples=["assocalpha"])
    rgb, alpha = read_image(path)
    assert rgb[0, :2].tolist() == [[128, 64, 0], [7, 7, 7]]
    assert alpha is not None and alpha.tolist() == [[True, True, False]]
    assert "colours divided by alpha" in notes(path)


def test_extra_samples_without_meaning_are_dropped_and_recorded(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    stored = rng.integers(0, 256, (8, 6, 5), dtype=np.uint8)
    path = write_tiff(tmp_path / "a.tif", stored, extrasamples=["unspecified", "unassalpha"])
    rgb, alpha = read_image(path)
    np.testing.assert_array_equal(rgb, stored[..., :3])
    np.testing.assert_array_equal(alpha, stored[..., 4] >= 128)
    assert "1 extra samples without a stated meaning dropped" in notes(path)


def test_planes_in_tiles_with_alpha(tmp_path: Path, rng: np.random.Generator) -> None:
    planes = rng.integers(0, 256, (4, 50, 40), dtype=np.uint8)
    path = write_tiff(
        tmp_path / "a.tif",
        planes,
        photometric="rgb",
        planarconfig="separate",
        tile=(16, 16),
        compression="zlib",
        extrasamples=["unassalpha"],
    )
    rgb, alpha = read_image(path)
    np.testing.assert_array_equal(rgb, np.moveaxis(planes[:3], 0, -1))
    np.testing.assert_array_equal(alpha, planes[3] >= 128)


def test_reduced_copies_behind_the_image_are_left_alone(
    tmp_path: Path, picture: npt.NDArray[np.uint8]
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(picture, photometric="rgb", metadata=None)
        tif.write(picture[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_image(path)[0], picture)


def png_interlaced(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Adam7, written out by the PNG specification (section 8.2)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    lines = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, across in passes
        for row in pixels[top::down, left::across]
        if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_interlaced_png(tmp_path: Path, picture: npt.NDArray[np.uint8]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_interlaced(picture))
    np.testing.assert_array_equal(read_image(path)[0], picture)


def test_16_bit_rgb_png_keeps_its_precision(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(0, 65536, (20, 10, 3), dtype=np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(stored))
    np.testing.assert_array_equal(read_image(path)[0], scaled(stored, 65535))
    stored //= 16
    path.write_bytes(imagecodecs.png_encode(stored))
    np.testing.assert_array_equal(read_image(path, white_level=4095)[0], scaled(stored, 4095))


def test_png_palette_and_transparent_colours(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path = tmp_path / "a.png"
    image.save(path, transparency=1, bits=2)
    rgb, alpha = read_image(path)
    assert rgb[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert alpha is not None and alpha.tolist() == [[True, False, True], [True, False, True]]
    assert "palette looked up" in notes(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_with_a_transparent_colour(tmp_path: Path, channels: int) -> None:
    stored = np.arange(12 * channels, dtype=np.uint16).reshape(3, 4, channels) * 1800
    sound = imagecodecs.png_encode(stored)
    body = b"tRNS" + stored[1, 2].astype(">u2").tobytes()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path = tmp_path / "a.png"
    path.write_bytes(sound[:33] + chunk + sound[33:])
    rgb, alpha = read_image(path)
    np.testing.assert_array_equal(rgb, np.broadcast_to(scaled(stored, 65535), (3, 4, 3)))
    assert alpha is not None and np.argwhere(~alpha).tolist() == [[1, 2]]


def test_one_bit_png(tmp_path: Path, picture: npt.NDArray[np.uint8]) -> None:
    bits = picture[..., 0] > 127
    path = tmp_path / "a.png"
    Image.fromarray(bits).save(path)
    np.testing.assert_array_equal(read_image(path)[0][..., 0], np.where(bits, 255, 0))
    assert "1-bit grey spread over 0 to 255" in notes(path)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(tmp_path: Path, smooth: npt.NDArray[np.uint8], progressive: bool) -> None:
    path = tmp_path / "a.JPG"
    Image.fromarray(smooth).save(path, "JPEG", quality=95, subsampling=0, progressive=progressive)
    rgb, alpha = read_image(path)
    assert alpha is None
    assert np.abs(rgb.astype(int) - smooth).max() <= 6
    np.testing.assert_array_equal(rgb, simplejpeg.decode_jpeg(path.read_bytes()))


def test_grey_and_cmyk_jpeg(tmp_path: Path, smooth: npt.NDArray[np.uint8]) -> None:
    grey, inks = tmp_path / "grey.jpg", tmp_path / "inks.jpg"
    Image.fromarray(smooth[..., 0]).save(grey, quality=95)
    Image.fromarray(smooth).convert("CMYK").save(inks, quality=95)
    assert np.abs(read_image(grey)[0].astype(int) - smooth[..., :1]).max() <= 6
    # Pillow turns RGB into ink by c = 255 - r, k = 0.
    assert np.abs(read_image(inks)[0].astype(int) - smooth).max() <= 8
    assert "as Adobe does" in notes(inks)


def oriented(path: Path, stored: npt.NDArray[np.uint8], orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    if path.suffix == ".tif":
        tag = (274, "H", 1, orientation, True)
        return write_tiff(path, stored, extratags=[tag], compression="zlib", rowsperstrip=4)
    # PNG has no use for the last two.
    Image.fromarray(stored).save(path, exif=exif, quality=100, subsampling=0)
    return path


UPRIGHT: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", list(UPRIGHT))
@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_orientation_then_depth(
    tmp_path: Path, smooth: npt.NDArray[np.uint8], kind: str, orientation: int
) -> None:
    path = oriented(tmp_path / f"a.{kind}", smooth, orientation)
    seen = UPRIGHT[orientation](smooth)
    for axis in ("y", "x"):
        for backwards in (False, True):
            expected = seen.swapaxes(0, 1) if axis == "x" else seen
            expected = expected[::-1] if backwards else expected
            source = open_image(path, depth_axis=axis, depth_reversed=backwards)
            rgb, _ = read_image(path, depth_axis=axis, depth_reversed=backwards)
            assert rgb.shape == (source.height_px, source.width_px, 3) == expected.shape
            assert np.abs(rgb.astype(int) - expected).max() <= (4 if kind == "jpg" else 0)
            assert ("depth along x: transposed" in source.conversions) == (axis == "x")
            assert ("depth reversed: rows flipped" in source.conversions) == backwards
            assert (f"orientation tag {orientation} applied" in source.conversions) == (orientation > 1)


def test_alpha_turns_with_the_image(tmp_path: Path, rng: np.random.Generator) -> None:
    rgba = rng.integers(0, 256, (11, 7, 4), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(rgba).save(path)
    _, alpha = read_image(path, depth_axis="x", depth_reversed=True)
    np.testing.assert_array_equal(alpha, (rgba[..., 3] >= 128).T[::-1])


@pytest.mark.parametrize("rows", [1, 5, 16, 37, 100])
@pytest.mark.parametrize("options", [{"rowsperstrip": 1}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {}])
@pytest.mark.parametrize("backwards", [False, True])
def test_slabs_tile_the_image(
    tmp_path: Path, rng: np.random.Generator, rows: int, options: dict[str, object], backwards: bool
) -> None:
    rgba = rng.integers(0, 256, (37, 20, 4), dtype=np.uint8)
    path = write_tiff(tmp_path / "a.tif", rgba, extrasamples=["unassalpha"], **options)
    slabs = list(open_image(path, depth_reversed=backwards).slabs(rows))
    assert [slab.row_px for slab in slabs] == list(range(0, 37, rows))
    assert all(len(slab.rgb) == rows for slab in slabs[:-1])
    expected = rgba[::-1] if backwards else rgba
    np.testing.assert_array_equal(np.concatenate([slab.rgb for slab in slabs]), expected[..., :3])
    masks = [slab.alpha for slab in slabs if slab.alpha is not None]
    np.testing.assert_array_equal(np.concatenate(masks), expected[..., 3] >= 128)
    assert all(slab.rgb.flags.c_contiguous for slab in slabs)


@pytest.mark.parametrize(("unit", "per_cm"), [("CENTIMETER", 1.0), ("INCH", 1 / 2.54), ("NONE", None)])
def test_tiff_resolution(
    tmp_path: Path, picture: npt.NDArray[np.uint8], unit: str, per_cm: float | None
) -> None:
    path = write_tiff(tmp_path / "a.tif", picture, resolution=(300, 200), resolutionunit=unit)
    down, across = open_image(path), open_image(path, depth_axis="x")
    assert down.resolution_px_per_cm == (None if per_cm is None else pytest.approx(200 * per_cm))
    assert across.resolution_px_per_cm == (None if per_cm is None else pytest.approx(300 * per_cm))


def test_resolution_of_png_and_jpeg(tmp_path: Path, picture: npt.NDArray[np.uint8]) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(picture).save(tmp_path / name, dpi=(508, 254))
        assert open_image(tmp_path / name).resolution_px_per_cm == pytest.approx(100, rel=1e-3)
        assert open_image(tmp_path / name, depth_axis="x").resolution_px_per_cm == pytest.approx(
            200, rel=1e-3
        )
        Image.fromarray(picture).save(tmp_path / name)
        assert open_image(tmp_path / name).resolution_px_per_cm is None


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_icc_profile_is_recorded_and_not_applied(
    tmp_path: Path, smooth: npt.NDArray[np.uint8], name: str
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = tmp_path / f"plain_{name}", tmp_path / name
    Image.fromarray(smooth).save(plain)
    Image.fromarray(smooth).save(tagged, icc_profile=profile)
    np.testing.assert_array_equal(read_image(tagged)[0], read_image(plain)[0])
    assert re.search(r"ICC profile '.+' not applied", notes(tagged))
    assert "ICC" not in notes(plain)


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (1, 1, 3)])
def test_a_line_of_pixels(tmp_path: Path, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    stored = rng.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(read_image(write_tiff(tmp_path / "a.tif", stored))[0], stored)
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], stored)


LONG = (20_000, 300, 3)
LAYOUTS: dict[str, dict[str, object]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 64},
    "deflate": {"rowsperstrip": 64, "compression": "zlib"},
    "tiles": {"tile": (64, 64)},
    "planes": {"planarconfig": "separate"},
}


def bytes_read() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


@pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="needs Linux to count the bytes that were read"
)
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_long_tiff_streams(tmp_path: Path, rng: np.random.Generator, layout: str) -> None:
    stored = rng.integers(0, 256, LONG, dtype=np.uint8)
    if layout == "planes":
        stored = np.ascontiguousarray(np.moveaxis(stored, -1, 0))
    path = write_tiff(tmp_path / "a.tif", stored, photometric="rgb", **LAYOUTS[layout])
    size = path.stat().st_size
    tracemalloc.start()
    before = bytes_read()
    slabs = open_image(path).slabs(256)
    first = next(slabs)
    assert bytes_read() - before < 0.05 * size
    rows = len(first.rgb) + sum(len(slab.rgb) for slab in slabs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == LONG[0]
    assert peak < size / 4


def test_pieces_of_a_high_strip_join_up(
    tmp_path: Path, picture: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_strips, "PIECE_BYTES", 500)  # 5 rows of 29 px
    for rows in (37, 12, 4):
        path = write_tiff(tmp_path / f"{rows}.tif", picture, rowsperstrip=rows)
        np.testing.assert_array_equal(read_image(path)[0], picture)


@pytest.mark.realdata
def test_every_real_image_reads(data_dir: Callable[[str], Path]) -> None:
    counts = {"bgs-corescore": 5, "itrax-ardley-yanou": 22, "itrax-cd166-19": 4, "m9907-cascadia": 3}
    for name, count in counts.items():
        images = [path for path in sorted(data_dir(name).rglob("*")) if path.suffix.lower() in SUFFIXES]
        assert len(images) == count
        for path in images:
            rgb, alpha = read_image(path)
            assert alpha is None
            if path.suffix == ".tif":
                stored = tifffile.imread(path)
            else:
                with Image.open(path) as image:
                    stored = np.asarray(image.convert("RGB"))
            if stored.dtype == np.uint16:
                np.testing.assert_array_equal(rgb, scaled(stored, 65535)[..., None].repeat(3, axis=-1))
            else:
                np.testing.assert_array_equal(rgb, stored)


@pytest.mark.realdata
def test_real_shapes(data_dir: Callable[[str], Path]) -> None:
    scan = data_dir("itrax-ardley-yanou") / "ARD1B" / "optical1.tif"
    assert (open_image(scan).height_px, open_image(scan, depth_axis="x").height_px) == (60, 1293)
    assert open_image(scan).resolution_px_per_cm == pytest.approx(72 / 2.54)
    crop = open_image(data_dir("m9907-cascadia") / "M9907-11PC_RGB_crop.png")
    assert (crop.height_px, crop.width_px) == (6711, 153)
