"""Coverage-guided fuzzing of every trace reader with atheris, for a bounded number of runs.

    pip install atheris
    python -m tests.fuzz.fuzz_readers -runs=200000 -max_len=2000 -rss_limit_mb=1000 -timeout=5

The first byte of an input chooses the format and whether errors stop or are skipped; the rest is the file. Seeds are
the hand-made examples of every format. Anything but sessions or a `TraceError` ends the run, as do 5 s or 1000 MB.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["traces"]):
    import traces
from tests.traces.readers.examples import EXAMPLES

FORMATS = [None, *traces.all_formats()]
FILE = Path(tempfile.mkdtemp()) / "trace"


def read(data: bytes) -> None:
    """Read one input."""
    if not data:
        return
    FILE.write_bytes(data[1:])
    with contextlib.suppress(traces.TraceError):
        on_error = "skip" if data[0] & 1 else "stop"
        trace = traces.read(FILE, FORMATS[(data[0] >> 1) % len(FORMATS)], on_error, tokenizer="words")
        for session in trace.sessions:
            assert session.calls
        assert all(isinstance(text, str) for text in trace.warnings)


def seeds() -> Path:
    """A folder with every example, once to stop and once to skip."""
    folder = Path(tempfile.mkdtemp())
    for number, example in enumerate(EXAMPLES):
        for skip in (0, 1):
            first = FORMATS.index(example.format) << 1 | skip
            (folder / f"{number}-{skip}").write_bytes(bytes([first]) + example.text.encode())
    return folder


if __name__ == "__main__":
    atheris.Setup([*sys.argv, str(seeds())], read)
    atheris.Fuzz()
