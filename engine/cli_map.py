"""The command that maps: rasters to a raster, points to a table."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lithostream.engine.cli_options import BundleOption, JsonOption, console, warn
from lithostream.engine.errors import ConfigError


def map_command(
    stack: Annotated[
        Path,
        typer.Argument(
            help="Raster with named bands, folder of rasters, TOML list of bands, or points: CSV, GeoPackage."
        ),
    ],
    bundle: BundleOption,
    out: Annotated[Path, typer.Option("--out", help="MAP.tif; of points MAP.csv or MAP.gpkg.")],
    sites: Annotated[
        Path | None, typer.Option("--sites", help="Known sites for the report: CSV or GeoPackage.")
    ] = None,
    crs: Annotated[
        str | None, typer.Option("--crs", help="Coordinate reference system of inputs that state none.")
    ] = None,
    targets: Annotated[int, typer.Option("--targets", min=1, max=10_000, help="Best targets to list.")] = 100,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Windows side by side.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Map probability, uncertainty and ranked targets from rasters or points."""
    from lithostream.engine.io.points import TABLES
    from lithostream.engine.maps.point_map import map_points
    from lithostream.engine.maps.record import MapSettings
    from lithostream.engine.maps.run import map_stack
    from lithostream.engine.progress import section_progress

    settings = MapSettings(crs=crs, targets=targets, threads=threads)
    if stack.suffix.lower() in TABLES:
        record = map_points(stack, bundle, out, settings, sites)
    else:
        with section_progress(console) as progress:
            record = map_stack(stack, bundle, out, settings, progress, sites)
    warn(record.notes)
    if as_json:
        files = [str(out.with_name(name)) for name in record.files]
        summary = {"out": str(out), "files": files, "unchanged": record.unchanged, "counts": record.counts}
        print(json.dumps({**summary, "notes": record.notes}))
    else:
        print(out)


def verify_map_bundle(path: Path) -> None:
    """Check a map bundle's checksums, graph and golden rows, and say so."""
    from lithostream.engine.maps.bundle import load_map_bundle
    from lithostream.engine.maps.session import MapSession

    loaded = load_map_bundle(path)
    session = MapSession(loaded)
    print(f"{loaded.manifest.name} {loaded.sha256} whole; golden rows met by {session.backend}")


def verify_files(path: Path) -> None:
    """Check the files of a map, and say how many are whole."""
    from lithostream.engine.maps.verify import verify_map

    files, problems = verify_map(path)
    warn(problems)
    if problems:
        raise ConfigError(f"{len(problems)} problems", file=path, fix="move the map away and make it again")
    print(f"{files} files whole")
