"""Images that are damaged, hostile or of a kind that is not read: one typed error, nothing else."""

import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from lithostream.engine.errors import DecodeError, LithostreamError, SourceError
from lithostream.engine.io import pixels
from lithostream.engine.io.images import open_image, read_image

Array = npt.NDArray[np.generic]
Y, X = np.mgrid[:40, :30]
SMOOTH = np.stack([X * 8, Y * 6, (X + Y) * 3], axis=-1).astype(np.uint8)


def write_tiff(path: Path, array: Array = SMOOTH, **options: object) -> Path:
    options.setdefault("photometric", "rgb" if array.ndim == 3 else "minisblack")
    tifffile.imwrite(path, array, metadata=None, **options)  # type: ignore[arg-type]
    return path


def patch(path: Path, **tags: object) -> Path:
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name, value in tags.items():
            tif.pages.first.tags[name].overwrite(value)
    return path


def refused(path: Path, **options: object) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        read_image(path, **options)  # type: ignore[arg-type]
    error = caught.value
    assert error.file == str(path)
    assert error.reason and error.fix
    return error


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, data: bytes, depth: int = 8, colour_type: int = 2, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


# Names, places, extensions


def test_unknown_extension_lists_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'\.bmp' is not one of \.tif, \.tiff, \.png, \.jpg, \.jpeg"):
        open_image(tmp_path / "core.bmp")


@pytest.mark.parametrize("name", ["no.tif", "no.png", "no.jpg"])
def test_missing_file_and_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        open_image(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match="cannot be read: Is a directory"):
        open_image(tmp_path / name)


def test_file_that_vanishes_after_opening(tmp_path: Path) -> None:
    for name in ("a.tif", "a.png", "a.jpg"):
        path = tmp_path / name
        Image.fromarray(SMOOTH).save(path)
        slabs = open_image(path).slabs(8)
        path.unlink()
        with pytest.raises(SourceError, match="cannot be read"):
            next(slabs)


def test_extension_and_content_disagree(tmp_path: Path) -> None:
    path = tmp_path / "core.tif"
    Image.fromarray(SMOOTH).save(path, "PNG")
    assert "extension '.tif' says TIFF, the content is PNG" in refused(path).reason


@pytest.mark.parametrize(
    "content", [b"", b"II", b"II*\0", b"\x89PNG", b"\xff\xd8\xff", b"GIF89a", bytes(500)]
)
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_no_image_at_all(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refused(path)


# Headers that promise too much


def bombs(folder: Path) -> dict[str, Path]:
    found = {}
    for compression in (None, "zlib", "lzw", "packbits", "zstd", "jpeg"):
        path = write_tiff(folder / f"{compression}.tif", rowsperstrip=40, compression=compression)
        patch(path, ImageWidth=400_000, ImageLength=400_000, RowsPerStrip=400_000)
        found[str(compression)] = path
    found["one row a strip"] = patch(
        write_tiff(folder / "rows.tif", rowsperstrip=1), ImageWidth=400_000, ImageLength=400_000
    )
    found["tile"] = patch(
        write_tiff(folder / "tile.tif", tile=(48, 32), compression="zstd"),
        TileWidth=400_000,
        TileLength=400_000,
    )
    for name, side in (("png", 400_000), ("png under the cap", 20_000)):
        found[name] = folder / f"{side}.png"
        found[name].write_bytes(png(side, side, bytes(1000)))
    found["jpeg"] = folder / "a.jpg"
    Image.fromarray(SMOOTH).save(found["jpeg"])
    data = bytearray(found["jpeg"].read_bytes())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 20_000, 20_000)
    found["jpeg"].write_bytes(data)
    return found


def test_header_bombs_are_refused_without_allocating(tmp_path: Path) -> None:
    paths = bombs(tmp_path)
    tracemalloc.start()
    for name, path in paths.items():
        tracemalloc.reset_peak()
        reason = refused(path).reason
        assert tracemalloc.get_traced_memory()[1] < 4_000_000, name
        assert "declares" in reason or "held whole" in reason or "needed" in reason, (name, reason)
    tracemalloc.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="unit of ru_maxrss")
def test_header_bombs_take_no_memory_outside_python_either(tmp_path: Path) -> None:
    names = [str(path) for path in bombs(tmp_path).values()]
    code = (
        "import resource\nfrom pathlib import Path\n"
        "from lithostream.engine.errors import DecodeError\n"
        "from lithostream.engine.io.images import read_image\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "start = peak()\n"
        f"for name in {names}:\n"
        "    try:\n        read_image(Path(name))\n        print('read', name)\n"
        "    except DecodeError:\n        pass\n"
        "print(peak() - start)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40_000  # kB


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageWidth": 0}, "nothing to read"),
        ({"ImageLength": 0}, "nothing to read"),
        ({"ImageWidth": 2_000_000}, "over the limit of 1000000 px"),
        ({"SamplesPerPixel": 9}, "9 samples a pixel"),
        ({"RowsPerStrip": 0}, "a strip of 0 x 30 px"),
        ({"RowsPerStrip": 3}, "5 offsets and 5 sizes for 14"),
        ({"ImageWidth": 29}, "720 bytes stored, 696 needed"),
        ({"Orientation": 9}, "orientation is 9"),
    ],
)
def test_impossible_tiff_header(tmp_path: Path, tags: dict[str, object], reason: str) -> None:
    path = write_tiff(tmp_path / "a.tif", rowsperstrip=8, extratags=[(274, "H", 1, 1, True)])
    assert reason in refused(patch(path, **tags)).reason


def test_zero_size_png_and_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(0, 5, b"\0" * 5))
    assert "nothing to read" in refused(path).reason
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).save(path)
    data = bytearray(path.read_bytes())
    struct.pack_into(">H", data, data.index(b"\xff\xc0") + 5, 0)
    path.write_bytes(data)
    assert "nothing to read" in refused(path).reason


def test_only_what_is_held_whole_falls_under_the_pixel_cap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "PIXEL_CAP", 1000)
    streamed = write_tiff(tmp_path / "a.tif", rowsperstrip=8)
    np.testing.assert_array_equal(read_image(streamed)[0], SMOOTH)
    assert (
        "40 x 30 px would be held whole (it has to be turned)"
        in refused(streamed, depth_reversed=True).reason
    )
    refused(streamed, depth_axis="x")
    assert (
        "in one strip" in refused(write_tiff(tmp_path / "b.tif", rowsperstrip=40, compression="zlib")).reason
    )
    for name in ("a.png", "a.jpg"):
        Image.fromarray(SMOOTH).save(tmp_path / name)
        assert "not a TIFF" in refused(tmp_path / name).reason


@pytest.mark.parametrize("codec", ["zlib", "lzw", "packbits", "zstd"])
def test_strip_that_unpacks_to_more_than_declared(tmp_path: Path, codec: str) -> None:
    encode: Callable[[bytes], bytes] = getattr(imagecodecs, f"{codec}_encode")
    for surplus in (1, 50_000_000):
        packed = encode(bytes(40 * 30 * 3 + surplus)) if surplus == 1 or codec in ("zlib", "zstd") else None
        if packed is None:
            continue
        path = write_tiff(tmp_path / "a.tif", rowsperstrip=40, compression=codec)
        at = path.stat().st_size
        with path.open("ab") as file:
            file.write(packed)
        patch(path, StripOffsets=at, StripByteCounts=len(packed))
        tracemalloc.start()
        error = refused(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
        tracemalloc.stop()
        assert error.place == "strip 0, rows 0 to 39"


@pytest.mark.parametrize("codec", ["zlib", "lzw", "packbits", "zstd"])
def test_strip_that_unpacks_to_less_than_declared(tmp_path: Path, codec: str) -> None:
    packed: bytes = getattr(imagecodecs, f"{codec}_encode")(bytes(40 * 30 * 3 - 1))
    path = write_tiff(tmp_path / "a.tif", rowsperstrip=40, compression=codec)
    at = path.stat().st_size
    with path.open("ab") as file:
        file.write(packed)
    patch(path, StripOffsets=at, StripByteCounts=len(packed))
    assert refused(path).reason == "3600 bytes declared, only 3599 found"


# Damage


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "jpeg"])
def test_truncated_tiff_names_strip_and_rows(tmp_path: Path, compression: str | None) -> None:
    path = write_tiff(tmp_path / "a.tif", rowsperstrip=16, compression=compression)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[1], tif.pages.first.databytecounts[1]
    path.write_bytes(path.read_bytes()[: offset + count - 1])
    error = refused(path)
    assert error.place == "strip 1, rows 16 to 31"
    assert "cut short" in error.reason


def test_tiff_cut_while_it_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", rowsperstrip=8)
    source = open_image(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DecodeError, match="strip 4, rows 32 to 39: 719 bytes left of 720"):
        list(source.slabs(8))


# Zstandard carries no checksum here, so only damage to its frame header must show.
@pytest.mark.parametrize(
    ("compression", "sound"), [("zlib", 0.5), ("lzw", 0.5), ("jpeg", 0.5), ("zstd", 0.0)]
)
def test_damaged_strip_is_named(tmp_path: Path, compression: str, sound: float) -> None:
    noise = np.random.default_rng(3).integers(0, 256, SMOOTH.shape, dtype=np.uint8)
    path = write_tiff(tmp_path / "a.tif", noise, rowsperstrip=16, compression=compression)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages.first.dataoffsets[1], tif.pages.first.databytecounts[1]
    data = bytearray(path.read_bytes())
    kept = int(count * sound)
    data[offset + kept : offset + count] = bytes(count - kept)
    path.write_bytes(data)
    assert refused(path).place == "strip 1, rows 16 to 31"


def test_jpeg_strip_without_its_end_is_not_painted_grey(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", rowsperstrip=16, compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        counts = list(tif.pages.first.databytecounts)
    counts[1] -= 40
    patch(path, StripByteCounts=counts)
    error = refused(path)
    assert error.place == "strip 1, rows 16 to 31"
    assert "Premature end of JPEG file" in error.reason


def test_overlapping_strips(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", rowsperstrip=1)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[0]
    patch(path, StripOffsets=[offset] * 40, ImageWidth=60, StripByteCounts=[180] * 40)
    assert "overlap" in refused(path).reason


def test_tag_that_cannot_be_read_is_not_replaced_by_its_default(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", extratags=[(274, "H", 1, 6, True)])
    with tifffile.TiffFile(path) as tif:
        at = tif.pages.first.tags["Orientation"].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, at + 2, 99)  # no such type
    path.write_bytes(data)
    assert refused(path).place == "tag ORIENTATION"


def test_page_chain_that_leads_nowhere(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        at = page.offset + 2 + 12 * len(page.tags)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, at, len(data) + 100)
    path.write_bytes(data)
    assert "a further page is announced" in refused(path).reason


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "progressive.jpg"])
def test_truncated_png_and_jpeg(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    Image.fromarray(SMOOTH).save(path, progressive="prog" in name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path)


@pytest.mark.parametrize("missing", [1, 2])
def test_jpeg_without_end_marker(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).save(path)
    path.write_bytes(path.read_bytes()[:-missing])
    assert "Premature end of JPEG file" in refused(path).reason


def test_damaged_jpeg_data(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 200] = bytes(200)
    path.write_bytes(data)
    assert refused(path).place == "image data"


def test_every_flipped_bit_of_a_png_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(SMOOTH).save(path)
    sound = path.read_bytes()
    for at in range(8, len(sound), 7):
        data = bytearray(sound)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        refused(path)


def test_png_with_too_few_rows_of_data(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(10, 10, bytes(31 * 9)))
    assert refused(path).place == "image data"


@pytest.mark.parametrize("block", [b"", b"II*\0", b"MM\0*\0\0\0\x08\0\x09", b"nonsense"])
def test_damaged_exif(tmp_path: Path, block: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(10, 10, bytes(310), extra=png_chunk(b"eXIf", block)))
    assert refused(path).place == "EXIF block"
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).save(path, exif=b"Exif\0\0" + block)
    assert refused(path).place == "EXIF block"


# Kinds that are not read

UNREAD: dict[str, tuple[Array, dict[str, object], str]] = {
    "float": (SMOOTH.astype(np.float32), {}, "samples of format 3"),
    "complex": (SMOOTH[..., 0].astype(np.complex64), {}, "samples of format 6"),
    "signed": (SMOOTH.astype(np.int16), {}, "samples of format 2"),
    "32 bit": (SMOOTH.astype(np.uint32), {}, "32-bit samples"),
    "Lab": (SMOOTH, {"photometric": "cielab"}, "colour space 8"),
    "mosaic": (SMOOTH[..., 0], {"photometric": "cfa"}, "colour space 32803"),
    "YCbCr": (SMOOTH, {"photometric": "ycbcr"}, "YCbCr without JPEG"),
    "LZMA": (SMOOTH, {"compression": "lzma"}, "compression 34925"),
    "float predictor": (SMOOTH.astype(np.float32), {"compression": "zlib", "predictor": 3}, "format 3"),
    "grey with 8 extras": (
        np.zeros((4, 4, 9), np.uint8),
        {"photometric": "minisblack", "planarconfig": "contig"},
        "9 samples a pixel",
    ),
}


@pytest.mark.parametrize("kind", list(UNREAD))
def test_tiff_kinds_that_are_not_read(tmp_path: Path, kind: str) -> None:
    stored, options, reason = UNREAD[kind]
    error = refused(write_tiff(tmp_path / "a.tif", stored, **options))
    assert reason in error.reason
    assert "8- or 16-bit grey or RGB" in error.fix


def test_two_full_size_pages(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.stack([SMOOTH, SMOOTH]))
    assert "page 2 is a second full-size image" in refused(path).reason


def test_white_level_that_is_too_low(tmp_path: Path) -> None:
    stored = np.zeros((40, 30), np.uint16)
    stored[33, 4] = 4096
    path = write_tiff(tmp_path / "a.tif", stored, rowsperstrip=8)
    error = refused(path, white_level=4095)
    assert error.place == "strip 4, rows 32 to 39"
    assert error.reason == "a sample is 4096, above the declared white level 4095"


@pytest.mark.parametrize("white", [0, -1, 65536])
def test_white_level_out_of_range(tmp_path: Path, white: int) -> None:
    with pytest.raises(ValueError, match="no 16-bit sample value"):
        open_image(tmp_path / "a.tif", white_level=white)


def test_cmyk_jpeg_without_adobe_marker(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).convert("CMYK").save(path)
    data = path.read_bytes()
    at = data.index(b"\xff\xee")
    path.write_bytes(data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :])
    assert "without the Adobe marker" in refused(path).reason


def test_12_bit_and_lossless_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(imagecodecs.jpeg_encode(SMOOTH, lossless=True))
    assert "lossless" in refused(path).reason
    path.write_bytes(imagecodecs.jpeg_encode(SMOOTH.astype(np.uint16) * 16, bitspersample=12))
    assert "3 components of 12 bit" in refused(path).reason


def test_animated_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    frames = [Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "an animation" in refused(path).reason


def test_slab_without_rows(tmp_path: Path) -> None:
    source = open_image(write_tiff(tmp_path / "a.tif"))
    with pytest.raises(ValueError, match="a slab of 0 rows"):
        next(source.slabs(0))


# Bytes changed at random


def seeds(folder: Path) -> list[Path]:
    deep = SMOOTH.astype(np.uint16) * 200
    write_tiff(folder / "plain.tif", rowsperstrip=8)
    write_tiff(
        folder / "tiles.tif", deep, tile=(16, 16), compression="lzw", predictor=True, resolution=(100, 100)
    )
    write_tiff(
        folder / "planes.tif",
        np.ascontiguousarray(np.moveaxis(deep, -1, 0)),
        planarconfig="separate",
        bigtiff=True,
        byteorder=">",
        compression="zstd",
        rowsperstrip=8,
    )
    write_tiff(folder / "strips.tif", rowsperstrip=16, compression="jpeg")
    Image.fromarray(SMOOTH).convert("P").save(folder / "palette.tif", compression="packbits")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(SMOOTH).save(folder / "exif.png", exif=exif, dpi=(200, 200))
    Image.fromarray(SMOOTH).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(SMOOTH).save(folder / "exif.jpg", exif=exif)
    Image.fromarray(SMOOTH).convert("CMYK").save(folder / "inks.jpg", progressive=True)
    return sorted(folder.iterdir())


def mutated(sound: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(sound)
    places = [0, max(0, len(data) - 300), 0]
    for _ in range(rng.integers(1, 4)):
        first = places[rng.integers(3)]
        data[rng.integers(first, len(data) if first else min(400, len(data)))] = rng.integers(256)
    return bytes(data[: rng.integers(len(data))]) if rng.random() < 0.1 else bytes(data)


def with_checksums(data: bytes) -> bytes:
    """Mend the checksums of a PNG, so that what they guard is reached."""
    mended, at = bytearray(data), 8
    while at + 12 <= len(mended):
        (length,) = struct.unpack_from(">I", mended, at)
        if at + 12 + length > len(mended):
            break
        struct.pack_into(">I", mended, at + 8 + length, zlib.crc32(mended[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(mended)


def test_changed_bytes_give_pixels_or_a_typed_error(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "sound").mkdir()
    outcomes = {"pixels": 0, "error": 0}
    for sound in seeds(tmp_path / "sound"):
        path, data = tmp_path / sound.name, sound.read_bytes()
        for number in range(150):
            changed = mutated(data, rng)
            path.write_bytes(with_checksums(changed) if sound.suffix == ".png" and number % 2 else changed)
            try:
                source = open_image(path)
                rgb, alpha = read_image(path)
            except LithostreamError as error:
                assert error.file == str(path)
                outcomes["error"] += 1
            else:
                assert rgb.shape == (source.height_px, source.width_px, 3)
                assert alpha is None or alpha.shape == rgb.shape[:2]
                outcomes["pixels"] += 1
    assert min(outcomes.values()) > 200
