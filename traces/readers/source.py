"""The source of a trace: a file or standard input, plain, gzip or zstd, as bytes and as numbered lines.

Nothing is read whole: a line may have `MOST_LINE_BYTES`, and whatever is compressed is taken apart as it is read.
"""

from __future__ import annotations

import functools
import gzip
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from traces.errors import TraceError

STANDARD_INPUT = "-"
MOST_LINE_BYTES = 64 * 2**20
BLOCK_BYTES = 2**19
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class TraceSource:
    """A trace's bytes, which can be opened again and again.

    Args:
        path: a file, or ``-`` for standard input; that and named pipes are copied to a temporary file first.

    Raises:
        TraceError: (from `opened`) no such file, a folder, a file without permission, or damaged compression.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.name = "standard input" if path == STANDARD_INPUT else str(path)

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The bytes from their beginning, decompressed."""
        try:
            with self._raw() as raw:
                magic = raw.read(4)
                raw.seek(0)
                yield _decompressed(raw, magic)
        except FileNotFoundError:
            raise self.wrong("no such file", "check the path") from None
        except IsADirectoryError:
            raise self.wrong("a folder", "name a file inside it") from None
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise self.wrong(f"damaged gzip data ({error})", "download or compress the file again") from None
        except OSError as error:
            if error.errno is None:  # pyarrow's, about what it takes apart
                raise self.wrong(f"damaged zstd data ({error})", "download or compress the file again") from None
            found = f"a file that cannot be read ({error.strerror or error})"
            raise self.wrong(found, "check the path and its permissions") from None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Every line with its number, from 1, its end included.

        Raises:
            TraceError: as `opened` does; and for a line of more than `MOST_LINE_BYTES`.
        """
        with self.opened() as file:
            for number, line in enumerate(iter(functools.partial(file.readline, MOST_LINE_BYTES), b""), start=1):
                if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
                    raise self._endless(number)
                yield number, line

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Many whole lines at once, with the number of the first.

        Raises:
            TraceError: as `lines` does.
        """
        rest, line = b"", 1
        with self.opened() as file:
            while piece := file.read(BLOCK_BYTES):
                end = piece.rfind(b"\n") + 1
                if end == 0:
                    rest += piece
                    if len(rest) > MOST_LINE_BYTES:
                        raise self._endless(line)
                    continue
                block, rest = rest + piece[:end], piece[end:]
                yield line, block
                line += block.count(b"\n")
            if rest:
                yield line, rest

    def decoded(self, line: bytes, number: int) -> str:
        """A line as text; a byte order mark before the first is dropped.

        Raises:
            TraceError: bytes that are not UTF-8.
        """
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            found = f"bytes that are not UTF-8 (byte {line[error.start]:#04x} at column {error.start + 1})"
            raise TraceError(self.name, found, "UTF-8 text", "save the file as UTF-8", number) from None

    def wrong(self, found: str, fix: str) -> TraceError:
        """The error to raise about the file as a whole."""
        return TraceError(self.name, found, "a file that holds a trace", fix)

    def _endless(self, line: int) -> TraceError:
        found = f"a line of more than {MOST_LINE_BYTES // 2**20} MiB"
        return TraceError(self.name, found, "shorter lines", "check that this is a trace", line)

    def _raw(self) -> IO[bytes]:
        piped = self.path == STANDARD_INPUT or Path(self.path).is_fifo()
        return Path(self._copy_of_the_pipe.name if piped else self.path).open("rb")

    @functools.cached_property
    def _copy_of_the_pipe(self) -> IO[bytes]:
        """A pipe gives its bytes once, and a trace is opened more often than that."""
        copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 - lives as long as the source
        if self.path == STANDARD_INPUT:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with Path(self.path).open("rb") as pipe:
                shutil.copyfileobj(pipe, copy)
        copy.flush()
        return copy


def _decompressed(raw: IO[bytes], magic: bytes) -> BinaryIO:
    if magic.startswith(GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if magic == ZSTD:
        import pyarrow as pa

        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"), 2**20))
    return cast(BinaryIO, raw)
