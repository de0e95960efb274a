"""How fast traces are read and converted: calls a CPU second on one core, and the memory that a large file takes.

python -m benchmarks.trace_conversion                       # every format, about a minute
python -m benchmarks.trace_conversion vidur mooncake        # some
python -m benchmarks.trace_conversion --memory 0.25         # peak memory for files of 0.25 GB, one of each kind
python -m benchmarks.trace_conversion --memory 2 vidur own  # for whole files of 2 GB (five minutes, 2 GB of disk)
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

import traces
from benchmarks.peak import peak_bytes

TURNS = 4
ONE_OF_EACH_KIND = ("vidur", "burstgpt-sessions", "mooncake-sessions", "own", "sharegpt")
CHUNK_CALLS = 50_000
Rows = Callable[[int], Iterator[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "formats", nargs="*", help=f"without any all, or for memory one of each kind: {', '.join(WRITERS)}"
    )
    parser.add_argument("--calls", type=int, default=100_000, help="in each file")
    parser.add_argument("--runs", type=int, default=3, help="of each; the median counts")
    parser.add_argument(
        "--memory", type=float, metavar="GB", help="instead: peak memory while reading a file this large"
    )
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak is not None:
        _print_peak(options.peak)
        return
    unknown = set(options.formats) - set(WRITERS)
    if unknown:
        parser.error(f"no format {', '.join(sorted(unknown))}; there are {', '.join(WRITERS)}")
    with tempfile.TemporaryDirectory() as folder:
        table = _speeds if options.memory is None else _peaks
        Console(width=None if sys.stdout.isatty() else 120).print(table(options, Path(folder)))


def _speeds(options: argparse.Namespace, folder: Path) -> Table:
    table = Table(title=f"calls a CPU second, {options.calls:,} calls a file, median of {options.runs}")
    for name in ("format", "file MB", "read to sessions", "converted to own"):
        table.add_column(name, justify="left" if name == "format" else "right")
    for name in options.formats or WRITERS:
        path = folder / name
        _write(path, WRITERS[name], options.calls)
        calls = _read(path)
        speeds = [[calls / _cpu_seconds(work, path) for _ in range(options.runs)] for work in (_read, _convert)]
        size = path.stat().st_size / 1e6
        table.add_row(name, f"{size:.1f}", *(f"{statistics.median(some):,.0f}" for some in speeds))
        path.unlink()
    return table


def _cpu_seconds(work: Callable[[Path], object], path: Path) -> float:
    begin = time.process_time()
    work(path)
    return time.process_time() - begin


def _read(path: Path) -> int:
    return sum(len(session.calls) for session in traces.read(path, tokenizer="words"))


def _read_by_columns(path: Path) -> int:
    """Read as a conversion does: by columns where the format has them."""
    trace = traces.read(path, tokenizer="words")
    if (requests := trace.requests) is not None:
        return sum(len(batch.outputs) for batch in requests)
    if (columns := trace.columns) is not None:
        return sum(len(batch.outputs) for batch in columns)
    return _read(path)


def _convert(path: Path) -> traces.Written:
    return traces.convert(traces.read(path, tokenizer="words"), path.with_name("out.jsonl"))


def _peaks(options: argparse.Namespace, folder: Path) -> Table:
    table = Table(title=f"peak memory of a process that reads a file of {options.memory:g} GB")
    for name in ("format", "calls", "peak MB", "CPU s"):
        table.add_column(name, justify="left" if name == "format" else "right")
    for name in options.formats or ONE_OF_EACH_KIND:
        path = folder / name
        _write_large(path, WRITERS[name], int(options.memory * 1e9))
        command = [sys.executable, "-m", "benchmarks.trace_conversion", "--peak", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.add_row(name, f"{found['calls']:,}", f"{found['peak'] / 1e6:,.0f}", f"{found['seconds']:,.0f}")
        path.unlink()
    return table


def _print_peak(path: Path) -> None:
    calls = _read_by_columns(path)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"calls": calls, "peak": peak_bytes(), "seconds": usage.ru_utime + usage.ru_stime}))


def _write(path: Path, rows: Rows, calls: int) -> None:
    with path.open("w") as file:
        file.writelines(rows(calls))


def _write_large(path: Path, rows: Rows, size: int) -> None:
    """A file of about ``size`` bytes: a chunk of rows again and again, each time with other ids."""
    text = "".join(rows(CHUNK_CALLS))
    if text.startswith("["):
        before, chunk, between, after = "[", text[1:-1], ",", "]"
    elif text.startswith("{"):
        before, chunk, between, after = "", text, "", ""
    else:
        header = text.index("\n") + 1
        before, chunk, between, after = text[:header], text[header:], "", ""
    with path.open("w") as file:
        file.write(before)
        for number in range(-(-size // len(chunk))):
            file.write((between if number else "") + chunk.replace("@", f"{number}-"))
        file.write(after)


def _vidur(calls: int) -> Iterator[str]:
    yield "arrived_at,num_prefill_tokens,num_decode_tokens\n"
    yield from (f"{k / 7:.6f},{100 + k % 3999},{1 + k % 499}\n" for k in range(calls))


def _azure(calls: int) -> Iterator[str]:
    yield "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    for k in range(calls):
        day, second = 1 + k // 864_000 % 28, k // 10
        time = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}.{k % 10}805900"
        yield f"2023-11-{day:02} {time},{100 + k % 3999},{1 + k % 499}\n"


def _burstgpt(calls: int) -> Iterator[str]:
    yield "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    yield from (f"{k // 3},GPT-4,{100 + k % 3999},{1 + k % 499},{101 + k % 7},API log\n" for k in range(calls))


def _burstgpt_sessions(calls: int) -> Iterator[str]:
    yield "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    for k in range(calls):
        session = f"1722ac82-0a46-4bf0-@-{k // TURNS:012}"
        yield f"{k}.0,{session},3,GPT-4,{100 + k % TURNS * 80},40,140,Conversation log\n"


def _mooncake(calls: int) -> Iterator[str]:
    for k in range(calls):
        hashes = [*range(8), *range(20 * k, 20 * k + 16)]
        yield (
            json.dumps({"timestamp": k * 300, "input_length": 12_035, "output_length": 343, "hash_ids": hashes}) + "\n"
        )


def _mooncake_sessions(calls: int) -> Iterator[str]:
    for k in range(calls):
        when = {"timestamp": k * 300} if k % TURNS == 0 else {"delay": 1500}
        turn = {"session_id": f"session-@{k // TURNS}", **when, "input_length": 300, "output_length": 343}
        yield json.dumps(turn) + "\n"


def _own(calls: int) -> Iterator[str]:
    for k in range(0, calls, TURNS):
        pause = {"output": 40, "pause": {"duration": 1.25, "returned": 30, "waits_for": "user"}}
        chain = [pause] * (TURNS - 1) + [{"output": 5}]
        yield json.dumps({"id": f"s@{k}", "kind": "chat", "arrival": k / 7, "prompt": 900, "calls": chain}) + "\n"


def _session_files(calls: int) -> Iterator[str]:
    for k in range(0, calls, TURNS):
        chain = [
            {"prompt": 900 + 70 * turn, "output": 40, "returned": 30, "pause_s": 1.25, "waits_for": "tool"}
            for turn in range(TURNS)
        ]
        yield json.dumps({"id": f"s@{k}", "kind": "math", "calls": chain}) + "\n"


def _llmservingsim(calls: int) -> Iterator[str]:
    for k in range(0, calls, TURNS):
        chain = [
            {"input_toks": 900 + 70 * turn, "output_toks": 40, "tool_duration_ns": 1_250_000_000}
            for turn in range(TURNS)
        ]
        yield json.dumps({"session_id": f"s@{k}", "arrival_time_ns": k * 10**8, "sub_requests": chain}) + "\n"


def _applied_compute(calls: int) -> Iterator[str]:
    rounds = TURNS - 1
    for _ in range(0, calls, TURNS):
        lists = {"assistant_response_length": [40] * rounds, "tool_call_output_length": [30] * rounds}
        row = {"num_turns": rounds, "input_prompt_length": 900, **lists, "tool_call_latency": [1.25] * rounds}
        yield json.dumps({**row, "final_assistant_response_length": 9}) + "\n"


def _weka(calls: int) -> Iterator[str]:
    for k in range(0, calls, TURNS):
        requests = [
            {
                "t": 9.0 * n,
                "type": "s",
                "in": 640 * (n + 1),
                "out": 40,
                "hash_ids": [*range(10 * n + 10)],
                "api_time": 2.5,
            }
            for n in range(TURNS)
        ]
        yield json.dumps({"id": f"s@{k}", "block_size": 64, "hash_id_scope": "local", "requests": requests}) + "\n"


def _sharegpt(calls: int) -> Iterator[str]:
    said = "what people say to each other in a chat " * 3
    yield "["
    for k in range(0, calls, TURNS):
        messages = [{"from": who, "value": said} for _ in range(TURNS) for who in ("human", "gpt")]
        yield ("," if k else "") + json.dumps({"id": f"s@{k}", "conversations": messages}) + "\n"
    yield "]"


WRITERS: dict[str, Rows] = {
    "vidur": _vidur,
    "azure": _azure,
    "burstgpt": _burstgpt,
    "burstgpt-sessions": _burstgpt_sessions,
    "mooncake": _mooncake,
    "mooncake-sessions": _mooncake_sessions,
    "own": _own,
    "session-files": _session_files,
    "llmservingsim": _llmservingsim,
    "applied-compute": _applied_compute,
    "weka": _weka,
    "sharegpt": _sharegpt,
}

if __name__ == "__main__":
    main()
