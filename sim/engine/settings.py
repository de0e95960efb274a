"""The engine settings in which published serving systems differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.kv.sample_layout import Layout

RENAMED_SETTINGS = {
    "reentry": "requeue_at",
    "resume_resident": "resume_on_gpu",
    "swapped_first": "swap_in_before_prefill",
}
"""Older names of settings and today's. Files, run folders and recordings may say either."""


def with_current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under today's names, in the order given.

    Raises:
        ValueError: a setting is given under both of its names.
    """
    for old, new in RENAMED_SETTINGS.items():
        if old in settings and new in settings:
            raise ValueError(f"{old} is the older name of {new}; keep one of them")
    return {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}


class EngineSettings(BaseModel):
    """Rules of one engine. Tokens and blocks are KV-cache tokens and blocks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_budget: Annotated[int, Field(ge=1)] | Literal["saturation"] = Field(
        default="saturation", description="query tokens an iteration may compute; 'saturation' takes the profile's S"
    )
    max_running: int = Field(default=256, ge=1, description="sessions that may compute in one iteration")
    chunked_prefill: bool = Field(default=True, description="split a prompt or a recompute over iterations")
    mixed_batches: bool = Field(default=True, description="let prefill and decode share an iteration")
    block_size: int = Field(default=16, ge=1, description="tokens per KV block")
    watermark: float = Field(default=0.01, ge=0, lt=1, description="share of GPU blocks that admissions leave free")
    swap: Literal["blocking", "overlapped"] = Field(
        default="overlapped", description="whether the batch waits for copies, or they run beside it"
    )
    swap_budget: Literal["hidden", "hidden-each-way", "unlimited"] = Field(
        default="hidden",
        description="'hidden' copies in an iteration only what its forward pass hides, out and in together; "
        "'hidden-each-way' that much out and as much in",
    )
    host_full: Literal["discard", "preserve"] = Field(
        default="preserve", description="what becomes of a context to be swapped out when the host pool is full"
    )
    preemption: Literal["recompute", "swap"] = Field(
        default="recompute", description="how a running session gives way when GPU blocks run out"
    )
    requeue_at: Literal["arrival", "tail"] = Field(
        default="arrival", description="where a resumed session queues: by its original arrival, or at the tail"
    )
    resume_on_gpu: Literal["running", "queue"] = Field(
        default="running", description="a session resumed with its context on the GPU runs at once, or queues"
    )
    swap_in_before_prefill: bool = Field(
        default=False,
        description="without mixed batches: no prefill while a resumed session waits to be swapped in; "
        "with them it has no effect",
    )
    streamed_prompts: Literal["whole", "parts"] = Field(
        default="whole", description="a prompt that streams in is waited for, or worked on part by part as it comes"
    )
    prefix_sharing: bool = Field(
        default=False,
        description="keep leading blocks that contexts have in common once, and cache them while there is room",
    )
    sample_layout: Layout = Field(
        default="paged-sharing",
        description="how several samples of one context lie in memory: in blocks shared until one writes, with their "
        "responses in segments apart, or in a contiguous buffer each, reserved at once",
    )
    recompute_swapped_when_idle: bool = Field(
        default=False, description="with an empty queue, turn one swapped session an iteration into a recompute"
    )

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, value: object) -> object:
        return with_current_names(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        if self.prefix_sharing and self.sample_layout == "contiguous":
            raise ValueError("sample_layout: contiguous shares nothing: take another layout, or no prefix_sharing")
        return self
