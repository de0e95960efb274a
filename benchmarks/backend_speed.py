"""How near the real backend comes to what the machine can do: each figure beside a limit measured in the same run.

python benchmarks/backend_speed.py --model llama-3.1-8b --out speed.json       # on a GPU, about four minutes
python benchmarks/backend_speed.py --model tiny --device cpu                   # a rehearsal; the figures mean nothing
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from figures import Row, against
from infercept_lengths import mixed_requests
from transformers_baseline import Baseline

from profiler.backend.backend import Backend, make_backend, make_model
from profiler.backend.block_tables import Move
from profiler.backend.cuda_events import record_event
from profiler.backend.executor import BatchExecutor, ChunkWork
from profiler.backend.kv_cache import page_lock, unlock
from profiler.backend.model import Llama
from profiler.backend.model_config import load_model_config
from profiler.backend.swap import Swapper, Way


@dataclass(frozen=True)
class Sizes:
    """What is measured. ``large`` is for a GPU of 40 GB and more, ``small`` for the rehearsal."""

    batch: int
    context: int
    chunk: int
    iterations: int
    copy_bytes: int
    mix: int
    longest: int
    latency_tokens: int


LARGE = Sizes(64, 1024, 2048, 80, 2 << 30, 64, 2400, 64)
SMALL = Sizes(4, 48, 64, 12, 1 << 20, 4, 120, 4)
BLOCK = 16


class Bench:
    """The measurements, one method each. ``rows`` collects them and prints each as it comes."""

    def __init__(self, model: Llama, sizes: Sizes) -> None:
        self.model, self.sizes, self.device = model, sizes, model.device
        self.rows: list[Row] = []
        self.chance = random.Random(0)
        blocks = -(-sizes.longest // BLOCK) * sizes.mix
        self.backend: Backend = make_backend(
            model, blocks, 8 * self.swap_blocks, BLOCK, 256, sizes.longest + 2 * sizes.chunk, max_decodes=256
        )
        self.chance.shuffle(self.backend.tables._free_gpu._ids)  # as after an hour of service

    @property
    def executor(self) -> BatchExecutor:
        return self.backend.executor

    @property
    def swap_blocks(self) -> int:
        return self.sizes.context // BLOCK

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row, flush=True)

    def seconds(self, work: Callable[[], object], repeats: int = 7) -> float:
        """Median device seconds of ``work`` after two warm-ups."""
        times = []
        for _ in range(repeats + 2):
            begin = record_event(self.device)
            work()
            end = record_event(self.device)
            end.wait()
            times.append(end.seconds_since(begin))
        return statistics.median(times[2:])

    # ---- limits

    def limits(self) -> None:
        size = self.sizes.copy_bytes
        source, target = (torch.ones(size, dtype=torch.uint8, device=self.device) for _ in range(2))
        self.bandwidth = 2 * size / self.seconds(lambda: target.copy_(source))
        self.add(Row("copy on the device (read + written)", self.bandwidth / 1e9, "GB/s"))
        host = torch.empty(size // 2, dtype=torch.uint8)
        if self.device.type == "cuda":
            page_lock(host)
        part = source[: size // 2]
        self.pinned = {
            True: size // 2 / self.seconds(lambda: host.copy_(part, non_blocking=True)),
            False: size // 2 / self.seconds(lambda: part.copy_(host, non_blocking=True)),
        }
        if self.device.type == "cuda":
            unlock(host)
        for out, name in ((True, "device to host"), (False, "host to device")):
            self.add(Row(f"one large pinned copy, {name}", self.pinned[out] / 1e9, "GB/s"))

    # ---- iterations

    def fill(self, keys: Sequence[str], context: int) -> None:
        """Open sessions and compute their contexts but for the one missing token."""
        for key in keys:
            self.executor.open(key, context - 1)
            for start in range(0, context - 1, self.sizes.chunk):
                tokens = min(self.sizes.chunk, context - 1 - start)
                self.executor.run([], [ChunkWork(key, start, tokens)])

    def close(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.executor.close(key)

    def decode(self) -> None:
        sizes, weights = self.sizes, self.model.weights
        keys = [f"d{index}" for index in range(sizes.batch)]
        self.fill(keys, sizes.context - sizes.iterations // 2)
        device, host, wall = self.iterate(keys, sizes.iterations)
        kv = sizes.batch * sizes.context * self.model.config.kv_bytes_per_token(self.model.dtype)
        limit = (weights.bytes_read_per_pass + kv) / self.bandwidth
        name = f"decode iteration, batch {sizes.batch}, context {sizes.context}"
        self.decode_s = device
        self.add(against(name, device * 1e3, "ms", limit * 1e3, "(weights + KV) / copy bandwidth"))
        self.add(against("host overhead, decode: wall less device", (wall - device) * 1e3, "ms", 1.0, "1 ms"))
        self.add(Row("host overhead, decode: work of the host", host * 1e3, "ms"))
        self.reset(keys)
        begin = time.perf_counter()
        for _ in range(sizes.iterations):
            last = self.executor.run(keys)
        last.wait()
        each = (time.perf_counter() - begin) / sizes.iterations
        self.add(against("decode, one iteration queued ahead", each * 1e3, "ms", device * 1e3, "its device time"))
        self.close(keys)

    def iterate(self, keys: Sequence[str], count: int, chunk: int = 0) -> tuple[float, float, float]:
        """Median device, host and wall seconds of iterations that are waited for, with a chunk of a prompt in each."""
        device, host, wall = [], [], []
        for index in range(count + 3):
            work = [ChunkWork("chunk", index * chunk % (8 * chunk), chunk)] if chunk else []
            begin = time.perf_counter()
            iteration = self.executor.run(keys, work)
            iteration.wait()
            wall.append(time.perf_counter() - begin)
            device.append(iteration.device_s())
            host.append(iteration.host_s)
        return tuple(statistics.median(times[3:]) for times in (device, host, wall))  # type: ignore[return-value]

    def mixed(self) -> None:
        sizes, chunk = self.sizes, self.sizes.chunk // 8
        keys = [f"m{index}" for index in range(sizes.batch - 1)]
        self.fill(keys, sizes.context // 2)
        self.executor.open("chunk", sizes.chunk + 1)
        device, host, wall = self.iterate(keys, sizes.iterations // 2, chunk)
        name = f"mixed iteration, {len(keys)} decodes and {chunk} of a prompt"
        self.add(Row(name, device * 1e3, "ms"))
        self.add(against("host overhead, mixed: wall less device", (wall - device) * 1e3, "ms", 1.0, "1 ms"))
        self.add(Row("host overhead, mixed: work of the host", host * 1e3, "ms"))
        self.close([*keys, "chunk"])

    def prefill(self) -> None:
        chunk = self.sizes.chunk

        def compute() -> None:
            self.executor.open("p", chunk)
            self.executor.run([], [ChunkWork("p", 0, chunk)])
            self.executor.close("p")

        x = torch.randn(chunk, self.model.config.hidden, device=self.device).to(self.model.dtype)

        def products() -> None:
            for layer in self.model.weights.layers:
                queries = F.linear(x, layer.qkv)[:, : self.model.config.query_size]
                F.linear(queries, layer.output)
                gate_up = F.linear(x, layer.gate_up)
                F.linear(gate_up[:, : self.model.config.intermediate], layer.down)
            F.linear(x[:1], self.model.weights.head)

        taken, limit = self.seconds(compute), self.seconds(products)
        flops = 2 * chunk * self.model.config.layer_parameters
        self.add(against(f"prefill chunk of {chunk}", taken * 1e3, "ms", limit * 1e3, "its matrix products alone"))
        self.add(Row("those matrix products", flops / limit / 1e12, "TFLOP/s"))

    # ---- swaps

    def moves(self, out: bool) -> deque[Move]:
        """Copies of one context each between unused blocks: scattered on the GPU, in runs on the host."""
        n = self.swap_blocks
        gpu = self.backend.tables._free_gpu._ids
        return deque(
            Move(None, out, tuple(gpu[i * n : (i + 1) * n]), tuple(range(i * n, (i + 1) * n)))
            for i in range(min(8, len(gpu) // n))
        )

    def swap(self) -> None:
        size = self.swap_blocks * self.backend.cache.block_bytes
        ways: tuple[Way, ...] = ("direct", "staged")
        for way in ways:
            swapper = Swapper(self.backend.cache, way)
            chosen = ", the backend's way" if way == self.backend.swapper.way else ""
            for out, name in ((True, "swap out"), (False, "swap in")):
                times, hosts, moves = [], [], self.moves(out)
                for index in range(16):
                    begin = time.perf_counter()
                    job = swapper.submit(moves[index % len(moves)])
                    swapper.launch()
                    hosts.append(time.perf_counter() - begin)
                    while not swapper.poll():
                        swapper.wait_for_one()
                    times.append(job.seconds())
                rate = size / statistics.median(times[4:])
                label = f"{name}, context {self.sizes.context}, {way}{chosen}"
                self.add(against(label, rate / 1e9, "GB/s", self.pinned[out] / 1e9, "one large copy"))
                self.add(Row(f"  host time to launch it, {way}", statistics.median(hosts[4:]) * 1e3, "ms"))

    def overlap(self) -> None:
        """Decode while copies run all the time, by each way and direction and both, against decode alone."""
        sizes = self.sizes
        keys = [f"o{index}" for index in range(sizes.batch)]
        self.fill(keys, sizes.context - sizes.iterations // 2)
        ways: tuple[Way, ...] = ("direct", "staged")
        for way in ways:
            swapper = Swapper(self.backend.cache, way)
            for label, directions in (("a copy out", [True]), ("a copy in", [False]), ("both", [True, False])):
                self.reset(keys)
                alone, _, _ = self.iterate(keys, sizes.iterations // 2)
                self.reset(keys)
                beside = self.iterate_beside(keys, swapper, directions)
                name = f"decode beside {label}, {way}"
                self.add(against(name, beside * 1e3, "ms", alone * 1e3, "decode alone"))
        self.close(keys)

    def reset(self, keys: Sequence[str]) -> None:
        """Bring contexts back to the length at which the measurement begins."""
        for key in keys:
            begin = self.sizes.context - self.sizes.iterations // 2
            self.executor.cut(key, begin)
            self.backend.tables.keep(key, begin - 1, 0)

    def iterate_beside(self, keys: Sequence[str], swapper: Swapper, directions: Sequence[bool]) -> float:
        """Median device seconds of decode iterations with a copy under way in each of ``directions`` all the time."""
        waiting = {out: self.moves(out) for out in directions}
        device = []
        for _ in range(self.sizes.iterations // 2):
            for moves in waiting.values():
                while moves:
                    swapper.submit(moves.popleft())
            iteration = self.executor.run(keys)
            swapper.launch()
            iteration.wait()
            device.append(iteration.device_s())
            for job in swapper.poll():
                waiting[job.move.out].append(job.move)
        while not swapper.idle:
            swapper.wait_for_one()
            swapper.poll()
        return statistics.median(device[3:])

    # ---- against transformers

    def latency(self, theirs: Baseline | None) -> None:
        """Seconds a token at batch 1."""
        sizes = self.sizes
        self.fill(["l"], sizes.context // 2)
        for _ in range(3):
            self.executor.run(["l"]).wait()
        begin = time.perf_counter()
        for _ in range(sizes.latency_tokens):
            self.executor.run(["l"]).wait()
        ours = (time.perf_counter() - begin) / sizes.latency_tokens
        self.close(["l"])
        weights = self.model.weights.bytes_read_per_pass / self.bandwidth
        self.add(against("token latency, batch 1", ours * 1e3, "ms", weights * 1e3, "weights / copy bandwidth"))
        if theirs is not None:
            generate = theirs.token_latency(sizes.context // 2, sizes.latency_tokens)
            self.add(against("token latency of generate, batch 1", generate * 1e3, "ms", ours * 1e3, "ours"))

    def throughput(self, theirs: Baseline | None) -> None:
        """Output tokens a second over a mix of requests, all there at the beginning."""
        requests = mixed_requests(self.sizes.mix, self.sizes.longest, self.chance)
        tokens = sum(output for _, output in requests)
        ours = tokens / self.serve(requests)
        self.add(Row(f"throughput, {len(requests)} requests of the InferCept mix", ours, "tokens/s"))
        if theirs is None:
            return
        for name, run in (("generate", theirs.generate_all), ("continuous batching", theirs.serve_all)):
            try:
                rate = tokens / run(requests)
            except Exception as error:  # a library beside ours: its failure is a result, not the end of the run
                print(f"transformers' {name} failed: {error!r}", flush=True)
                continue
            self.add(against("our throughput", ours, "tokens/s", rate, f"that of transformers' {name}"))

    def serve(self, requests: Sequence[tuple[int, int]]) -> float:
        """Seconds to serve (prompt, output) requests: all that can decode do, prompts fill up a budget of tokens."""
        for index, (prompt, _) in enumerate(requests):
            self.executor.open(index, prompt)
        waiting, left = deque(range(len(requests))), dict[int, int]()
        done, begin = 0, time.perf_counter()
        while waiting or left:
            budget, chunks, decoding = self.sizes.chunk - len(left), list[ChunkWork](), list(left)
            while waiting and budget > 0:
                index = waiting[0]
                tokens = min(budget, requests[index][0] - done)
                chunks.append(ChunkWork(index, done, tokens))
                budget, done = budget - tokens, done + tokens
                if done == requests[index][0]:
                    waiting.popleft()
                    left[index], done = requests[index][1], 0
            iteration = self.executor.run(decoding, chunks)
            for index in list(left):
                left[index] -= 1
                if left[index] == 0:
                    del left[index]
                    self.executor.close(index)
        iteration.wait()
        return time.perf_counter() - begin


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="llama-3.1-8b")
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path, help="write the figures here as JSON")
    options.add_argument("--no-transformers", action="store_true", help="leave out the comparison")
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    sizes = LARGE if device.type == "cuda" else SMALL
    if device.type == "cpu":
        torch.set_num_threads(1)
    begin = time.perf_counter()
    config = load_model_config(chosen.model)
    model = make_model(config, device, None, 0, sizes.longest + 2 * sizes.chunk)
    bench = Bench(model, sizes)
    bench.executor.capture()
    bench.add(Row("start: weights, kernels, graphs", time.perf_counter() - begin, "s"))
    bench.limits()
    for measure in (bench.decode, bench.mixed, bench.prefill, bench.swap, bench.overlap):
        measure()
    theirs = None if chosen.no_transformers else Baseline(model)
    bench.latency(theirs)
    bench.throughput(theirs)
    bench.add(Row("the whole benchmark", time.perf_counter() - begin, "s"))
    if chosen.out:
        facts: dict[str, Any] = {"model": config.name, "dtype": str(model.dtype), **machine(device)}
        chosen.out.write_text(json.dumps({**facts, "rows": [asdict(row) for row in bench.rows]}, indent=1))


def machine(device: torch.device) -> dict[str, str]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda)}


if __name__ == "__main__":
    main()
