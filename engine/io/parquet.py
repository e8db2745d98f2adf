"""Parquet files whose bytes follow from the table alone."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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
    with path.open("wb") as file:
        pq.write_table(
            table.combine_chunks(),
            file,
            version="2.6",
            data_page_version="1.0",
            row_group_size=_ROW_GROUP,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
        )
