"""Where labelled sections come from, and the hashes that prove it later."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lithostream.engine.bundle import sha256_file
from lithostream.engine.core.section import Section
from lithostream.engine.errors import ConfigError
from lithostream.engine.io.discover import discover
from lithostream.training.config import TrainConfig
from lithostream.training.demo_data import write_cores


def labelled_sections(paths: Sequence[Path]) -> list[Section]:
    """Find the sections that have a sensor log.

    Raises
    ------
    LithostreamError
        A section that cannot be used: training on part of the data would pass unnoticed.
    ConfigError
        No section has a log.
    """
    sections, errors = discover(list(paths))
    if errors:
        raise errors[0]
    labelled = [section for section in sections if section.log is not None]
    if not labelled:
        raise ConfigError(
            f"none of {len(sections)} sections has a sensor log",
            file=paths[0] if paths else None,
            fix='name the log of each section in a manifest: log = "..."',
        )
    return labelled


@contextmanager
def training_sections(
    config: TrainConfig, config_path: Path, data: Sequence[Path]
) -> Iterator[list[Section]]:
    """Yield the sections to learn from; generated ones exist for the time of the block.

    Parameters
    ----------
    config : TrainConfig
    config_path : Path
        Relative paths of `config.data` start at its folder.
    data : sequence of Path
        Used in place of what the configuration names, unless empty.
    """
    if data:
        yield labelled_sections(data)
    elif config.synthetic is None:
        yield labelled_sections([config_path.parent / path for path in config.data])
    else:
        with TemporaryDirectory(prefix="lithostream_cores_") as folder:
            yield labelled_sections(write_cores(config.synthetic, Path(folder)))


def data_hashes(sections: Sequence[Section]) -> dict[str, str]:
    """SHA-256 by file name of the images and logs of sections, and by `PLANE/NAME` of their planes."""
    files = [path for section in sections for path in (section.image, section.log) if path is not None]
    planes = [plane for section in sections for plane in section.planes]
    return {path.name: _hash(path) for path in files} | {
        f"{plane.name}/{plane.image.name}": _hash(plane.image) for plane in planes
    }


def section_hashes(section: Section) -> list[str]:
    """SHA-256 of the image, the log (empty where there is none), each sidecar and each plane of a section."""
    return [
        _hash(section.image),
        "" if section.log is None else _hash(section.log),
        *(_hash(path) for path in section.sidecars),
        *(_hash(plane.image) for plane in section.planes),
    ]


def _hash(path: Path) -> str:
    status = path.stat()
    return _hash_once(path, status.st_size, status.st_mtime_ns)


@cache
def _hash_once(path: Path, _size: int, _changed_ns: int) -> str:
    """Hash a file, once in this process as long as it does not change: images are large."""
    return sha256_file(path)
