"""Several beams or samples from one prompt: what three layouts of the KV cache hold, and the batch that each allows.

A closed-form account of static batches, as the Segment KV cache was published with (arXiv 2401.05391): all requests of
a batch have the same lengths, begin together and end together. The engine, which serves such sessions as they come and
go, is not involved (``sim.kv.sample_layout``).
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.costs.batch import Batch
from sim.costs.cost_model import CostModel
from sim.kv.block_pool import blocks_for
from sim.kv.sample_layout import Layout


@dataclass(frozen=True)
class BeamRequests:
    """Requests that are alike.

    Attributes:
        prompt: tokens.
        response: tokens of each beam.
        beams: decoded from the one prompt.
    """

    prompt: int
    response: int
    beams: int


def tokens_held(layout: Layout, requests: BeamRequests, *, step: int = 16, reserved: int | None = None) -> int:
    """KV tokens for which one request holds memory when its last token is generated.

    - ``contiguous``: a buffer for each beam with its own copy of the prompt, beams x (prompt + response), or
      beams x ``reserved`` where every buffer is made for the longest request that could come.
    - ``segment``: the prompt once, and for each beam the response in steps, prompt + beams x ceil(response / step) x
      step (arXiv 2401.05391; the formula is derived from its description).
    - ``paged-sharing``: blocks of ``step`` tokens; whole blocks of the prompt once, and for each beam the rest, the
      last block of the prompt copied at its first write.

    Raises:
        ValueError: a request outgrows what is reserved.
    """
    prompt, response, beams = requests.prompt, requests.response, requests.beams
    if layout == "segment":
        return prompt + beams * blocks_for(response, step) * step
    if layout == "paged-sharing":
        shared = prompt // step
        return (shared + beams * (blocks_for(prompt + response, step) - shared)) * step
    if reserved is not None and reserved < prompt + response:
        raise ValueError(f"buffers of {reserved} tokens are too short for {prompt} + {response}")
    return beams * (prompt + response if reserved is None else reserved)


def largest_batch(capacity: int, held: int) -> int:
    """Requests that a pool of ``capacity`` KV tokens holds at once, each ``held`` tokens at its end."""
    return capacity // held


def batch_seconds(costs: CostModel, requests: BeamRequests, batch: int, *, shared_prompt: bool) -> float:
    """Seconds of a batch from its first prompt token to its last response token.

    Every prompt is computed in a forward pass of its own, once or, without ``shared_prompt``, once a beam, and each
    beam reads its whole context in every step. Copies that a layout needs when beams change places are left out.
    """
    alone = Batch()
    alone.add_chunk(0, requests.prompt)
    prompts = batch if shared_prompt else batch * requests.beams
    decoding = Batch(batch * requests.beams, batch * requests.beams * (requests.prompt + 1))
    steps = requests.response - 1  # the prompt's pass gives the first
    decoded = costs.ends(decoding, 0.0, steps)[-1] if steps else 0.0
    return prompts * costs.iteration_time(alone) + decoded
