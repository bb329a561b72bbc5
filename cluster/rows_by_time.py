"""A file's rows in the order of their time, however large the file: read and sorted in chunks.

A chunk is sorted in memory. Where there are several, each is put beside as a *run*, an Arrow file
in a temporary folder, and the runs are merged while they are read: memory holds one chunk, or one
small batch of each run, never the file. Equal times keep the order of the file.
"""

import heapq
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from engine.errors import RejectedInput

CHUNK_ROWS = 200_000
BATCH_ROWS = 4_096
"""Rows of each run that lie in memory while the runs are merged."""
CSV_BLOCK_BYTES = 16_000_000
"""What a CSV file's types are found in; a later row that does not fit them is refused."""
TIME, ROW = "@time", "@row"

Cells = dict[str, Any]


class RowFile(Protocol):
    """Rows that can be read in batches."""

    @property
    def column_names(self) -> list[str]: ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the file's order, with these columns.

        Raises:
            RejectedInput: it cannot be read any further.
        """
        ...


class TableRows:
    """A table that is in memory already."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def column_names(self) -> list[str]:
        return list(self._table.column_names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from self._table.select(list(columns)).to_batches(max_chunksize=CHUNK_ROWS)


class PathRows:
    """A CSV file with a header, or a Parquet file.

    Raises:
        RejectedInput: it is missing, or neither.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_parquet = path.suffix in (".parquet", ".pq")
        try:
            if self._is_parquet:
                self.column_names = list(pyarrow.parquet.read_schema(path).names)
            else:
                with pyarrow.csv.open_csv(path, pyarrow.csv.ReadOptions(**_BLOCKS)) as opened:
                    self.column_names = list(opened.schema.names)
        except FileNotFoundError:
            problem = f"there is no file {path}"
            raise RejectedInput("/file", problem, "name a CSV or Parquet file") from None
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            if self._is_parquet:
                with pyarrow.parquet.ParquetFile(self._path) as file:
                    yield from file.iter_batches(CHUNK_ROWS, columns=list(columns))
                return
            options = pyarrow.csv.ConvertOptions(include_columns=list(columns))
            with pyarrow.csv.open_csv(
                self._path, pyarrow.csv.ReadOptions(**_BLOCKS), convert_options=options
            ) as opened:
                yield from opened
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> RejectedInput:
        problem = f"{self._path} cannot be read: {error}"
        fix = "send CSV with a header, whose columns keep their type, or Parquet"
        return RejectedInput("/file", problem, fix)


_BLOCKS = {"block_size": CSV_BLOCK_BYTES}


class RowsByTime:
    """Rows that were told with their time, to be read in its order as often as wanted."""

    def __init__(self) -> None:
        self.rows = 0
        self.first_ms, self.last_ms = 0, 0
        self._chunk: list[pa.Table] = []  # of less than CHUNK_ROWS rows together
        self._waiting = 0
        self._runs: list[Path] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, batch: pa.RecordBatch, kept: list[int], times: list[int], first: int) -> None:
        """Take the rows ``kept`` of a batch, whose first row has number ``first`` in the file."""
        if not kept:
            return
        table = pa.Table.from_batches([batch]).take(pa.array(kept, pa.int64()))
        table = table.append_column(TIME, pa.array(times, pa.int64()))
        table = table.append_column(ROW, pa.array([first + at for at in kept], pa.int64()))
        earliest, latest = min(times), max(times)
        self.first_ms = min(self.first_ms, earliest) if self.rows else earliest
        self.last_ms = max(self.last_ms, latest) if self.rows else latest
        self.rows += len(kept)
        self._chunk.append(table)
        self._waiting += len(kept)
        if self._waiting >= CHUNK_ROWS:
            self._put_run()

    def finish(self) -> None:
        """Say that no row follows."""
        if self._runs and self._chunk:
            self._put_run()

    def read(self) -> Iterator[tuple[int, int, Cells]]:
        """Yield (time, row, cells) by time, then row."""
        if self._runs:
            key = _place
            yield from heapq.merge(*(_read_run(run) for run in self._runs), key=key)
        elif self._chunk:
            for batch in self._sorted().to_batches(max_chunksize=BATCH_ROWS):
                yield from _cells(batch)

    def close(self) -> None:
        """Remove the runs."""
        if self._folder is not None:
            self._folder.cleanup()

    def _sorted(self) -> pa.Table:
        return pa.concat_tables(self._chunk).sort_by([(TIME, "ascending"), (ROW, "ascending")])

    def _put_run(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="repricer-feed-")
        run = Path(self._folder.name) / f"{len(self._runs):06d}.arrow"
        table = self._sorted()
        with pa.OSFile(str(run), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=BATCH_ROWS)
        self._runs.append(run)
        self._chunk, self._waiting = [], 0


def _place(row: tuple[int, int, Cells]) -> tuple[int, int]:
    return row[0], row[1]


def _read_run(run: Path) -> Iterator[tuple[int, int, Cells]]:
    with pa.OSFile(str(run), "rb") as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield from _cells(reader.get_batch(number))


def _cells(batch: pa.RecordBatch) -> Iterator[tuple[int, int, Cells]]:
    for cells in rows_of(batch):
        moment, row = cells.pop(TIME), cells.pop(ROW)
        yield moment, row, cells


def rows_of(batch: pa.RecordBatch) -> Iterator[Cells]:
    """Yield each row's cells by column."""
    names = batch.schema.names
    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield dict(zip(names, values, strict=True))
