"""Batch sizes and throughput of several beams from one prompt: ``python -m benchmarks.segment_kv [PROFILE_FOLDER]``.

Closed form, see ``sim.kv.beam_layouts``; beam width 4 and prompts of 32 to 2,048 tokens as in arXiv 2401.05391.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sim.costs.cost_model import CostModel
from sim.costs.profile import load_profile
from sim.kv.beam_layouts import BeamRequests, Layout, batch_seconds, largest_batch, tokens_held

RESERVED = 4096
ROWS: tuple[tuple[str, Layout, int | None], ...] = (
    ("reserved", "contiguous", RESERVED),
    ("contiguous", "contiguous", None),
    ("paged sharing", "paged-sharing", None),
    ("segment", "segment", None),
)


def main(folder: Path) -> None:
    """Print, as Markdown, the largest batch and its tokens per second for each layout, and the ratio to contiguous."""
    profile = load_profile(folder)
    costs = CostModel(profile)
    print(f"{profile.name}, {profile.kv_capacity_tokens:,} KV tokens; requests at once, tokens/s of all beams\n")
    print("| prompt | response | " + " | ".join(name for name, _, _ in ROWS) + " | batch, times | tokens/s, times |")
    print("| --- " * (len(ROWS) + 4) + "|")
    for prompt, response in ((32, 128), (256, 128), (1024, 128), (2048, 128), (1024, 512)):
        requests = BeamRequests(prompt, response, 4)
        batches, speeds = [], []
        for _, layout, reserved in ROWS:
            batch = largest_batch(profile.kv_capacity_tokens, tokens_held(layout, requests, reserved=reserved))
            seconds = batch_seconds(costs, requests, batch, shared_prompt=layout != "contiguous")
            batches.append(batch)
            speeds.append(batch * 4 * response / seconds)
        cells = [f"{batch}, {speed:,.0f}" for batch, speed in zip(batches, speeds, strict=True)]
        ratios = f"{batches[-1] / batches[1]:.1f} | {speeds[-1] / speeds[1]:.1f}"
        print(f"| {prompt} | {response} | {' | '.join(cells)} | {ratios} |")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "configs/profiles/h200/vicuna-13b"))
