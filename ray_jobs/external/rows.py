"""Rows of outside files, whatever their format, and errors that say which row of which file is wrong.

JSON lines, CSV and text are read as streams; a Parquet file is read a batch of rows at a time, from a temporary file
where it does not lie on this machine.
"""

import contextlib
import csv
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from configs.files import PinnedFile
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.files.streams import CheckedFile, Stream, is_local, local_path

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_ROW_BYTES = 64 << 20
"""A longer row is taken for a file of another format: it would be held in memory."""
BATCH_ROWS = 1000
COPY_BYTES = 1 << 20

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
Fields = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The rows of one file. Iterating gives (row number from 1, fields).

    Rows are counted as a person does who looks at the file: of JSON lines and text by lines, else by records, a CSV
    file's header not counted.

    Raises:
        UserError: while iterating; the message names file and row, and what is wrong.
        Changed: the file is not the one that was pinned.
        ConnectionError: its server does not answer.
    """

    of: str
    """Whose file it is, such as "eval-sets gsm8k"; errors begin with it."""
    file: PinnedFile
    format: str = "auto"
    allowed_hosts: tuple[str, ...] = ()
    text_unit: Literal["file", "paragraph", "line"] = "file"
    """Of files of format text, whose rows have the one field "text"."""
    columns: tuple[str, ...] = ()
    """Fields that are asked for, where others need not be read."""

    def __iter__(self) -> Iterator[tuple[int, Fields]]:
        match self._format:
            case "jsonl":
                yield from self._json_rows()
            case "csv":
                yield from self._csv_rows()
            case "parquet":
                yield from self._parquet_rows()
            case _:
                yield from self._text_rows()

    def text(self, row: int, fields: Fields, name: str) -> str:
        """All text below the field: of lists and records each part, on a line of its own; "" where it is null.

        Raises:
            UserError: the row has no such field.
        """
        value: Any = fields
        for part in [name] if name in fields else name.split("."):
            if not isinstance(value, dict) or part not in value:
                raise self.error(row, f"has no field {name!r}: it has {', '.join(map(repr, fields)) or 'none'}")
            value = value[part]
        return "\n".join(_texts(value))

    def error(self, row: int | None, complaint: str) -> UserError:
        place = "" if row is None else f", row {row}"
        return UserError(f"{self.of}, file {self.file.url}{place} {complaint}")

    @property
    def is_text(self) -> bool:
        """Whether the file has no columns."""
        return self._format == "text"

    @property
    def _format(self) -> str:
        if self.format != "auto":
            return self.format
        name = self.file.url.partition("?")[0].removesuffix(".gz").removesuffix(".zst")
        suffix = "." + name.rpartition("/")[2].rpartition(".")[2].lower()
        if suffix not in _FORMATS:
            raise self.error(None, f"is of no format that its name tells ({', '.join(_FORMATS)}): set `format`")
        return _FORMATS[suffix]

    def _json_rows(self) -> Iterator[tuple[int, Fields]]:
        for row, line in self._lines():
            if not line.strip():
                continue
            try:
                # NaN and infinities, which some writers leave in place of a missing number, are none in JSON.
                fields = json.loads(line, parse_constant=lambda name: None)
            except (ValueError, RecursionError) as error:  # a ValueError too where a number has thousands of digits
                raise self.error(row, f"is not JSON ({error}): write one object a line") from error
            if not isinstance(fields, dict):
                raise self.error(row, f"is {_kind(fields)}: write one JSON object a line")
            yield row, fields

    def _csv_rows(self) -> Iterator[tuple[int, Fields]]:
        csv.field_size_limit(MAX_ROW_BYTES)
        row = 0
        reader = csv.DictReader((line for _, line in self._lines()), strict=True)
        while True:
            row += 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise self.error(row, f"is not CSV ({error}): quote fields that hold quotes or commas") from error
            if fields is None:
                return
            if None in fields or None in fields.values():
                num_fields = sum(value is not None for value in fields.values()) + len(fields.get(None) or [None]) - 1
                raise self.error(row, f"has {num_fields} fields, the header has {len(reader.fieldnames or ())}")
            yield row, fields

    def _text_rows(self) -> Iterator[tuple[int, Fields]]:
        first, lines = 1, list[str]()
        length = 0
        for row, line in self._lines():
            ends = self.text_unit == "line" or (self.text_unit == "paragraph" and not line.strip())
            first = first if lines else row
            lines.append(line)
            length += len(line)
            if length > MAX_ROW_BYTES:
                raise self.error(first, f"begins a text of more than {MAX_ROW_BYTES >> 20} MiB: set text_unit: line")
            if ends:
                yield first, {"text": "".join(lines)}
                lines, length = [], 0
        if lines:
            yield first, {"text": "".join(lines)}

    def _lines(self) -> Iterator[tuple[int, str]]:
        with contextlib.closing(self._open()) as stream:
            row = 0
            while True:
                row += 1
                try:
                    line = stream.readline(MAX_ROW_BYTES + 1)
                except (gzip.BadGzipFile, EOFError, zlib.error, _DamagedZstd) as error:
                    raise self.error(row, f"cannot be decompressed ({error}): fetch the file again") from error
                if not line:
                    return
                if len(line) > MAX_ROW_BYTES:
                    raise self.error(row, f"is longer than {MAX_ROW_BYTES >> 20} MiB: check the format")
                try:
                    yield row, line.decode("utf-8-sig" if row == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise self.error(
                        row, f"is not UTF-8 (byte {line[error.start]:#04x} at {error.start}): convert the file"
                    ) from error

    def _open(self) -> io.BufferedIOBase:
        name = self.file.url.partition("?")[0].lower()
        raw = io.BufferedReader(_Raw(CheckedFile(self.file, self.allowed_hosts).open()), COPY_BYTES)
        if name.endswith(".gz"):
            return gzip.GzipFile(fileobj=raw)
        if name.endswith(".zst"):
            return io.BufferedReader(_Zstd(raw), COPY_BYTES)
        return raw

    def _parquet_rows(self) -> Iterator[tuple[int, Fields]]:
        import pyarrow as pa

        row = 0
        with self._parquet() as file:
            names = file.schema_arrow.names
            wanted = {name if name in names else name.partition(".")[0] for name in self.columns}
            # Where one is missing all are read, for the error to name.
            columns = sorted(wanted) if wanted and wanted <= set(names) else None
            try:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                    for fields in batch.to_pylist():
                        row += 1
                        yield row, fields
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise self.error(row + 1, f"or one after it cannot be read ({error}): write the file again") from error

    @contextlib.contextmanager
    def _parquet(self) -> Iterator["pq.ParquetFile"]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        source = CheckedFile(self.file, self.allowed_hosts)
        with contextlib.ExitStack() as stack:
            if is_local(self.file.url):
                local: IO[bytes] = stack.enter_context(local_path(self.file.url).open("rb"))
            else:
                local = stack.enter_context(tempfile.TemporaryFile())
                with contextlib.closing(source.open()) as stream:
                    shutil.copyfileobj(stream, local, COPY_BYTES)
            try:
                opened = pq.ParquetFile(local)
            except pa.ArrowException as error:
                raise self.error(None, f"is no Parquet file ({error}): check the format") from error
            yield opened


class _Raw(io.RawIOBase):
    """A stream as Python's buffered readers want it."""

    def __init__(self, stream: Stream):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _DamagedZstd(ValueError):
    """A .zst file does not decompress."""


class _Zstd(io.RawIOBase):
    """Decompresses as it is read, frame after frame."""

    def __init__(self, raw: io.BufferedIOBase):
        import pyarrow as pa

        self._raw = raw
        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except ConnectionError:
            raise
        except OSError as error:
            raise _DamagedZstd(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, bool):
        yield str(value).lower()
    elif value is not None:
        yield str(value)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
