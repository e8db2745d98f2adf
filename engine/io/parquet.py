"""Parquet files whose bytes follow from the table alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

PART_ROWS = 6144  # of a row group of a table that comes in parts: 1.5 m x 10 cm of core have 6,000 segments
_ROW_GROUP = 65536
_ZSTD_LEVEL = 3


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table; equal tables give equal bytes (per pyarrow version), however they are chunked.

    Units, descriptions and provenance travel in the schema's metadata.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    _write([table], path, _ROW_GROUP)


def write_parts(parts: Iterable[pa.Table], path: Path) -> None:
    """Write a table that comes in parts, at least one; equal tables give equal bytes, however they are parted.

    Memory holds a part and a row group of `PART_ROWS`. Up to that many rows the bytes are those of `write_parquet`.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    _write(parts, path, PART_ROWS)


def _write(parts: Iterable[pa.Table], path: Path, group: int) -> None:
    parts = iter(parts)
    held = next(parts)
    with path.open("wb") as file, _writer(file, held.schema) as writer:
        for part in parts:
            held = pa.concat_tables([held, part])
            while held.num_rows > group:
                _write_group(writer, held.slice(0, group), group)
                held = held.slice(group)
        _write_group(writer, held, group)


def _write_group(writer: pq.ParquetWriter, table: pa.Table, group: int) -> None:
    writer.write_table(table.combine_chunks(), row_group_size=group)
    pa.default_memory_pool().release_unused()  # else it keeps several times what a group takes


def _writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
    )
