"""Weka's and AgentX' recorded coding agents (kv-cache-tester): one JSON object a session, a line or a file each.

``id``, ``block_size`` (64), ``hash_id_scope``, ``requests`` [{``t`` (s since the session began), ``in``, ``out``,
``hash_ids``, ``api_time`` (s), ``input_types``} or {``type``: ``subagent``, ``agent_id``, ``requests`` []}].

Every request states its whole prompt; what it shares with the one before follows from the leading ``hash_ids``. A pause
lasts from the end of a request, ``t + api_time``, to the next one's ``t``; requests that overlapped in time get a
pause of 0 s that waits for ``overlap``. ``input_types`` tell tools (``tool_result``) from people. A sub-agent becomes a
session of its own, ``<id>/<agent_id>``, that arrives when it was started; the pause of the session that started it
holds the time. ``block_hashes`` are kept where ``hash_id_scope`` is not ``local``: local ones mean nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from traces.readers.continuation import Turn, calls_of, shared_tokens
from traces.readers.reading import Reading
from traces.readers.records import Record
from traces.readers.trace_format import Format, Head
from traces.readers.values import objects
from traces.session import Session

SESSION = frozenset(("id", "models", "block_size", "hash_id_scope", "tool_tokens", "system_tokens", "requests"))
REQUEST = frozenset(
    (
        "t",
        "type",
        "model",
        "in",
        "out",
        "hash_ids",
        "input_types",
        "output_types",
        "stop",
        "api_time",
        "ttft",
        "think_time",
    )
)
SUBAGENT = SESSION | {"type", "t", "agent_id", "subagent_type", "duration_ms", "total_tokens", "status"}


def read(reading: Reading) -> Iterator[Session]:
    """The sessions, each before its sub-agents; they arrive at 0, and sub-agents as much later as they were started."""
    yield from reading.each(_with_subagents(reading), lambda agent: _session(agent, reading))


def _with_subagents(reading: Reading) -> Iterator[Record]:
    """Every agent as a record of its own, with the ``id`` that its session will have."""
    for record in objects(reading):
        reading.note_unused(record, SESSION)
        agents = reading.attempt(record, _agents, reading, "", 0)
        yield from agents or ()


def _agents(record: Record, reading: Reading, id: str, depth: int) -> list[Record]:
    if depth > 8:
        raise record.wrong("requests", "sub-agents nine deep", "at most eight", "remove the innermost")
    id = id or record.identity("id", f"weka-{record.line}")
    requests = record.some_records("requests")
    own = [request for request in requests if request.values.get("type") != "subagent"]
    below: list[Record] = []
    for index, request in enumerate(requests):
        if request.values.get("type") == "subagent":
            reading.note_unused(request, SUBAGENT)
            name = f"{id}/{request.identity('agent_id', str(index))}"
            inherited = {key: record.values.get(key) for key in ("block_size", "hash_id_scope")}
            agent = Record(inherited | request.values, request.file, request.line, request)
            below += _agents(agent, reading, name, depth + 1)
    if not own:
        return below
    values = {**record.values, "id": id, "requests": [request.values for request in own]}
    return [Record(values, record.file, record.line, record), *below]


def _session(record: Record, reading: Reading) -> Session | None:
    block = record.whole("block_size", 64, least=1)
    requests = record.some_records("requests")
    served = []
    for request in requests:
        reading.note_unused(request, REQUEST)
        if request.whole("in") > 0 and request.whole("out") > 0:
            served.append(request)
    if len(served) < len(requests):
        reading.left_out["requests without prompt or output"] += len(requests) - len(served)
    if not served:
        return None
    turns = _turns(served, block)
    reading.plausibility.see_turns(len(turns) - 1, sum(turn.waits_for == "overlap" for turn in turns))
    first, id = served[0], record.text("id")
    hashes = () if record.text("hash_id_scope", "local") == "local" else first.wholes("hash_ids")
    return Session(
        id,
        first.seconds("t", 0.0) if "/" in id else 0.0,
        turns[0].prompt,
        calls_of(turns, block),
        record.text("subagent_type", ""),
        block_hashes=hashes,
        hash_block=block if hashes else 0,
    )


def _turns(requests: list[Record], block: int) -> list[Turn]:
    turns: list[Turn] = []
    ended, hashes_before = 0.0, None
    for request in requests:
        begin = request.seconds("t", 0.0)
        hashes = request.wholes("hash_ids") if request.has("hash_ids") else None
        pause, waits_for, shared = begin - ended, "tool", None
        if pause < 0:
            waits_for = "overlap"
        elif (types := request.values.get("input_types")) and isinstance(types, list) and "tool_result" not in types:
            waits_for = "user"
        if hashes is not None and hashes_before is not None:
            shared = shared_tokens(hashes_before, hashes, block)
        turns.append(Turn(request.whole("in"), request.whole("out"), max(pause, 0.0), shared, waits_for))
        ended, hashes_before = begin + request.seconds("api_time", 0.0), hashes
    return turns


def _recognised(head: Head) -> bool:
    return head.has("requests") and any(map(head.has, ("block_size", "hash_id_scope", "models", "tool_tokens")))


FORMAT = Format(
    "weka",
    "Weka / AgentX recorded coding agents, one JSON object a session",
    recognises=_recognised,
    read=read,
    lacks=frozenset({"arrivals"}),
)
