"""The torch backend as a real engine: the simulator's engine and policies by the wall clock, on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from policies.registry import make_order, make_policy
from profiler.backend.backend import Backend
from profiler.measure.machine import describe
from profiler.serving.iterations import KEPT, iteration_rows
from profiler.serving.real_engine import RealRun
from profiler.serving.server import Server
from profiler.serving.token_match import Alone, TokenKeeper, match_tokens
from sim.costs.profile import Profile
from sim.engine.settings import EngineSettings
from traces.session import Session


class TorchEngine:
    """Serves sessions on a backend, and tells all that there is to tell.

    Args:
        backend: large enough for every run.
        device: where it is.
        profile: costs that policies and the swap budget ask for, and the sizes of the pools.
        checked: sessions whose tokens are compared with those that they have alone.
        alone: serves them alone; None compares none.
    """

    def __init__(
        self,
        backend: Backend,
        device: torch.device,
        profile: Profile,
        checked: Sequence[Session] = (),
        alone: Alone | None = None,
    ) -> None:
        self._backend = backend
        self._device = device
        self._profile = profile
        self._checked = checked
        self._alone = alone

    def serve(self, sessions: Sequence[Session], rules: Mapping[str, Any], horizon: float | None) -> RealRun:
        """Serve the sessions, as `profiler.serving.real_engine.RealEngine` says.

        Raises:
            PolicyError: the policy raised, or answered something impossible.
            UnsupportedSession: a session has a shape that the engine or the backend cannot serve.
        """
        server = Server(
            self._backend,
            policy=make_policy(rules["policy"]),
            order=make_order(rules["order"]),
            settings=EngineSettings.model_validate(rules["engine"]),
            profile=self._profile,
        )
        keeper = TokenKeeper(self._backend.executor, self._checked)
        server.on_leave = keeper.leaving
        record = server.serve(sessions, horizon)
        server.abandon()
        timings = server.timings
        device_s = sum(timings.device)
        return RealRun(
            record=record,
            iterations=pd.DataFrame(iteration_rows(timings), columns=list(KEPT)),
            token_match=None if self._alone is None else match_tokens(keeper.tokens(), self._checked, self._alone),
            provenance={
                **describe(self._device),
                "iterations": len(timings.wall),
                "host_s": sum(timings.wall) - device_s,
                "device_s": device_s,
            },
        )
