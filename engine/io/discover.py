"""From paths that a person names to the sections to process, each with its scale and identity.

An input that cannot be identified becomes one typed error, and the others go on. In a folder, names that
begin with a dot are passed over, and a `manifest.toml` speaks for the whole folder it lies in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lithostream.engine.core.section import Section
from lithostream.engine.errors import LithostreamError, SourceError
from lithostream.engine.io import itrax
from lithostream.engine.io.describe import describe_image
from lithostream.engine.io.images import SUFFIXES
from lithostream.engine.io.itrax_results import evaluations
from lithostream.engine.io.line_file import SUFFIX as LINES
from lithostream.engine.io.line_file import open_lines
from lithostream.engine.io.manifest import MANIFEST_NAME, ManifestSection, read_manifest
from lithostream.engine.io.names import unique_names
from lithostream.engine.io.usgs import add_core_logs

READ = (*SUFFIXES, LINES)

Found = Section | LithostreamError


def discover(paths: Sequence[Path]) -> tuple[list[Section], list[LithostreamError]]:
    """Find the sections that paths stand for.

    Parameters
    ----------
    paths : sequence of Path
        Images, spools of live lines, folders (searched with their sub-folders), Itrax folders, TOML manifests.

    Returns
    -------
    list of Section
        In the order given, folders sorted by name; names are safe and unique. An image that was named twice
        with the same settings is one section.
    list of LithostreamError
        One per input that cannot be identified.
    """
    found = [item for path in paths for item in _with_logs(path, list(_guarded(path, partial(_named, path))))]
    sections, errors = _distinct(found)
    names = unique_names(section.name for section in sections)
    return [replace(section, name=name) for section, name in zip(sections, names, strict=True)], errors


def _guarded(path: Path, find: Callable[[], Iterable[Found]]) -> Iterator[Found]:
    """Pass on what is found; an error that is raised ends the search there, and is passed on too."""
    try:
        yield from find()
    except LithostreamError as error:
        yield error
    except OSError as error:
        yield SourceError(
            f"cannot be read: {error.strerror}", file=path, fix="check the path and its permissions"
        )


def _with_logs(path: Path, found: list[Found]) -> list[Found]:
    """Find the log of every section that has none yet: in its Itrax folder, or of its core in this folder."""
    scans: list[Found] = []
    for one in found:
        if isinstance(one, Section) and one.core_cm is not None:
            scans.extend(_guarded(one.image, partial(_with_results, one)))
        else:
            scans.append(one)
    found_any = any(isinstance(one, Section) for one in scans)
    return add_core_logs(scans, path) if found_any and path.is_dir() else scans


def _with_results(scan: Section) -> Iterator[Found]:
    """Add the results of an Itrax scan; other evaluations of it are read too, for their flags."""
    results = evaluations(scan.image.parent)
    log = scan.log or next(iter(results), None)
    others = tuple(path for path in results if path != log) if log in results else ()
    yield replace(scan, log=log, sidecars=(*scan.sidecars, *others))


def _distinct(found: Sequence[Found]) -> tuple[list[Section], list[LithostreamError]]:
    """Take each image once; an image described in two ways is an error, and not taken at all."""
    sections: dict[Path, Section] = {}
    clashes: dict[Path, LithostreamError] = {}
    errors: list[LithostreamError] = []
    for item in found:
        if isinstance(item, LithostreamError):
            errors.append(item)
            continue
        key = item.image.resolve()
        first = sections.setdefault(key, item)
        same = replace(first, name=item.name, image=item.image, sidecars=item.sidecars, notes=item.notes)
        if same != item:
            clashes[key] = SourceError(
                "named twice, with different settings",
                file=item.image,
                fix="name it once: alone, or in one manifest",
            )
    return [one for key, one in sections.items() if key not in clashes], errors + list(clashes.values())


def _named(path: Path) -> Iterator[Found]:
    """Find what one path of the command line stands for."""
    suffix = path.suffix.casefold()
    if path.is_dir():
        yield from _or_nothing(path, _in_folder(path, path.resolve()))
    elif not path.exists():
        raise SourceError("no such file or folder", file=path, fix="check the path")
    elif suffix == ".toml":
        yield from _in_manifest(path)
    elif suffix in READ:
        yield from _one(path)
    else:
        raise SourceError(
            f"extension {path.suffix!r} is not read",
            file=path,
            fix=f"give an image ({', '.join(READ)}), a folder, or a manifest (.toml)",
        )


def _or_nothing(folder: Path, found: Iterator[Found]) -> Iterator[Found]:
    first = next(found, None)
    if first is None:
        raise SourceError("no image in this folder", file=folder, fix=f"looked for {', '.join(READ)}")
    yield first
    yield from found


def _in_folder(folder: Path, root: Path) -> Iterator[Found]:
    """Search a folder. A link must not lead out of `root`; a linked folder inside it is met at its own place."""
    if (folder / MANIFEST_NAME).is_file():
        yield from _in_manifest(folder / MANIFEST_NAME)
        return
    is_scan = itrax.is_itrax_folder(folder)
    if is_scan:
        yield from _guarded(folder, partial(_in_scan, folder))
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        is_folder = path.is_dir()
        is_image = path.suffix.casefold() in READ and not is_folder and not is_scan
        if not (is_folder or is_image):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            yield SourceError(
                f"a link that leaves {root}", file=path, fix="name its target on the command line"
            )
        elif is_image:
            yield from _guarded(path, partial(_one, path))
        elif not path.is_symlink():
            yield from _guarded(path, partial(_in_folder, path, root))


def _one(image: Path, stated: ManifestSection | None = None) -> Iterator[Found]:
    if image.suffix.casefold() != LINES:
        yield describe_image(image, stated)
    elif stated is None:
        yield open_lines(image).header.to_section(image)
    else:
        raise SourceError(
            "a spool of live lines says itself what it is",
            file=image,
            fix="leave it out of the manifest, and name it by itself",
        )


def _in_scan(folder: Path) -> Iterator[Found]:
    """Take the one colour image of an Itrax folder."""
    image, notes = itrax.colour_image(folder)
    section = describe_image(image)
    yield replace(section, notes=section.notes + notes)


def _in_manifest(path: Path) -> Iterator[Found]:
    for item in read_manifest(path):
        if isinstance(item, LithostreamError):
            yield item
        else:
            yield from _guarded(item.image, partial(_one, item.image, item))
