"""What can go wrong in a simulation, said so that a person can act on it."""

from __future__ import annotations


class SimulationError(Exception):
    """A run that cannot go on. The message says why and what to change."""


class PolicyError(SimulationError):
    """A policy raised, or answered something impossible. Names the policy, the session and the simulated time."""


class UnsupportedSession(SimulationError):
    """A session uses a shape that the schema names and the engine cannot serve yet."""


class StalledEngine(SimulationError):
    """Work is waiting, nothing runs, and no event could change that: a rule of the engine is broken."""
