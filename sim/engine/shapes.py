"""Which shapes of session the engine serves."""

from __future__ import annotations

from sim.errors import UnsupportedSession
from traces.session import Session


def require_supported(session: Session) -> None:
    """Refuse a session whose shape the engine cannot serve.

    Named prefixes and block hashes are no reason: they say what sessions could share, and an engine without
    ``prefix_sharing`` keeps every context whole. Prompts that stream in come as calls and pauses
    (``sim.world.arrivals``).

    Raises:
        UnsupportedSession: names the session and the field.
    """
    pauses = session.pauses
    if not (pauses or session.stream):
        return
    unsupported = {
        "samples, with a prompt that is worked on as it comes": session.samples > 1
        and any(pause.not_before is not None for pause in pauses),
        "stream": bool(session.stream),
        "pause.tools": any(pause.tools for pause in pauses),
        "pause.session": any(pause.session for pause in pauses),
    }
    for name, used in unsupported.items():
        if used:
            raise UnsupportedSession(f"session {session.id} uses {name!r}, which the engine does not serve yet")
