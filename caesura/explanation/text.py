"""An explanation in words, for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from caesura.results.text_table import number
from sim.engine.policy_calls import DECODING, WATERMARK
from sim.results.session_log import CAUSES, SessionEvent

if TYPE_CHECKING:
    import pandas as pd

    from caesura.explanation.story import Story

_WIDTH = 132
_CAUSES = dict(
    zip(CAUSES, ("kept while idle", "recompute, own", "recompute, others'", "copies"), strict=True),
)
_STYLES = {"decided": "bold", "arrived": "cyan", "call_ended": "cyan", "answered": "cyan", "finished": "cyan"}
_MOST_PASSED = 2
_WASTES = {"preserve": "if kept", "swap": "if swapped", "discard": "if discarded", "recompute": "if recomputed"}
_PRICES = ("price", "host_price")
_ASKED = {"pause": "at the pause", "revise": "asked again"}


def as_text(explanation: Story) -> str:
    """The whole explanation, as wide as a page."""
    console = Console(file=io.StringIO(), width=_WIDTH)
    show(explanation, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show(explanation: Story, console: Console) -> None:
    """Print what happened, the waste that it caused, and how this was found out."""
    for line in _head(explanation):
        console.print(line, highlight=False, markup=False)
    console.print("")
    console.print(_timeline(explanation))
    if explanation.waste:
        console.print("\nGPU memory that it wasted, thousand token-seconds by call and cause", style="bold")
        console.print(_waste(explanation))
    console.print("")
    for note in explanation.notes:
        console.print(note, highlight=False, markup=False)


def _head(explanation: Story) -> list[str]:
    row, label = explanation.session, explanation.label
    kind = f" ({row['kind']})" if row["kind"] else ""
    each = f" of each of {row['samples']} samples" if row.get("samples", 1) > 1 else ""
    latency = f"; {number(1e3 * row['normalized_latency'])} ms per token" if row["status"] == "finished" else ""
    return [
        f"Session {row['id']}{kind} under {label['system']} at load {label['load']:g}, seed {label['seed']}: "
        f"{row['status']}{latency}",
        f"{row['output_tokens']:,} tokens{each} in {row['calls']} calls, {row['pauses']} pauses, "
        f"{number(row['pause_s'])} s; {number(row['queued_s'])} s in the queue; "
        f"{row['recomputed_tokens']:,} tokens recomputed, "
        f"{number(row['swapped_out_bytes'] / 1e6)} MB swapped out, {row['preemptions']} preemptions",
    ]


def _timeline(explanation: Story) -> Table:
    moved = len({entry.replica for entry in explanation.entries}) > 1
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("time s", justify="right", no_wrap=True)
    if moved:
        table.add_column("replica", justify="right")
    table.add_column("what happened", ratio=1)
    for heading in ("on GPU", "on host", "missing"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry, text in zip(explanation.entries, sentences(explanation), strict=True):
        place = [str(entry.replica)] if moved else []
        tokens = (f"{count:,}" for count in (entry.resident, entry.offloaded, entry.missing))
        told = Text(text, style=_STYLES.get(entry.what, ""))
        table.add_row(f"{entry.time:.3f}", *place, told, *tokens)
    return table


def _waste(explanation: Story) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("call")
    for cause in CAUSES:
        table.add_column(_CAUSES[cause], justify="right")
    for call, causes in sorted(explanation.waste.items()):
        table.add_row(f"{call + 1}", *(number(causes[cause] / 1e3) for cause in CAUSES))
    sums = {cause: sum(causes[cause] for causes in explanation.waste.values()) for cause in CAUSES}
    table.add_row("all", *(number(sums[cause] / 1e3) for cause in CAUSES), style="bold")
    whole = explanation.run_waste
    table.add_row("% of the run's", *(number(100 * sums[c] / whole[c] if whole[c] else 0.0) for c in CAUSES))
    return table


def candidate_table(candidates: pd.DataFrame) -> Table:
    """Sessions worth asking about."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("--session", "id", "kind"):
        table.add_column(heading, vertical="bottom", no_wrap=heading != "kind")
    for heading in ("ms per token", "pauses", "s in queue", "tokens recomputed", "MB swapped", "times preempted"):
        table.add_column(heading, justify="right", vertical="bottom", min_width=max(map(len, heading.split())))
    for _, row in candidates.iterrows():
        measures = (1e3 * row["normalized_latency"], row["pauses"], row["queued_s"], row["recomputed_tokens"])
        rest = (row["swapped_out_bytes"] / 1e6, row["preemptions"])
        words = (Text(str(word)) for word in (row["pick"], row["id"], row["kind"]))
        table.add_row(*words, *(_amount(value) for value in measures + rest))
    return table


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else number(value)


# ---- sentences


def sentences(explanation: Story) -> list[str]:
    """What each entry says."""
    texts, before = [], None
    for entry in explanation.entries:
        texts.append(_sentence(entry, before))
        before = entry
    return texts


def _sentence(entry: SessionEvent, before: SessionEvent | None) -> str:
    told = {
        "arrived": _arrived,
        "queued": _queued,
        "passed": _passed,
        "computed": _computed,
        "call_ended": _call_ended,
        "decided": _decided,
        "swapped": _swapped,
        "copy_began": _copy_began,
        "copied": _copied,
        "answered": _answered,
        "adopted": _answered,
        "finished": _finished,
    }
    if entry.what in told:
        return told[entry.what](entry, entry.details)
    if entry.what == "preempted":
        held = entry.resident + entry.offloaded
        return f"preempted; its context {'stays for now' if held else 'is forgotten'}"
    if entry.what == "dropped":
        lost = before.resident + before.offloaded - entry.resident - entry.offloaded if before is not None else 0
        return f"KV of {_tokens(lost)} forgotten" if lost > 0 else "part of the context is forgotten"
    if entry.what == "went_on":
        return f"goes on where it stopped, {_s(entry.details['waited_s'])} later"
    if entry.what == "rejected":
        return f"rejected: {entry.details['reason']}"
    return {"first_token": f"first token of call {entry.call + 1}", "left_replica": "goes on elsewhere"}[entry.what]


def _arrived(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    return f"arrives with a prompt of {_tokens(numbers['prompt_tokens'])}; {numbers['calls']} calls lie ahead"


def _queued(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    after = f", next after {_sessions(numbers['next_before'])}" if numbers["next_before"] else ""
    return f"order: {_numbers(numbers['key'])}; {_behind(numbers)}{after}"


def _passed(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    passed_by, passes = numbers["passed_by"], numbers["passes"]
    told = [f"{_sessions(passed_by)} {'passes' if len(passed_by) == 1 else 'pass'} it"] if passed_by else []
    told += [f"it passes {_sessions(passes)}"] if passes else []
    until = f", up to {numbers['until']:.3f} s" if numbers["until"] > entry.time else ""
    was = f" instead of {_numbers(numbers['was'])}" if numbers["was"] else ""
    return f"order{until}: {' and '.join(told)}; {_numbers(numbers['key'])}{was}, {_behind(numbers)}"


def _behind(numbers: Mapping[str, Any]) -> str:
    old = numbers.get("running_ranked_at")
    aged = (
        "" if old is None else f" (running sessions ranked at {old:.3f} s or later: ranks are moot while all can run)"
    )
    return f"behind {numbers['before']} of {numbers['others']} that are ready{aged}"


def _sessions(keys: Mapping[str, Mapping[str, float]]) -> str:
    named = [f"{one} ({_numbers(key)})" for one, key in [*keys.items()][:_MOST_PASSED]]
    more = len(keys) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _numbers(key: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:,.6g}" for name, value in key.items())


def _computed(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    waited = f"after {_s(numbers['waited_s'])} in the queue " if numbers["waited_s"] > 0 else ""
    count, again = numbers["iterations"], numbers["recomputed_tokens"]
    recomputed = f", {again:,} of them for the second time" if again else ""
    seconds = _s(numbers["computing_s"])
    spent = f"{count} iterations, {seconds} in all" if count > 1 else f"one iteration of {seconds}"
    return f"{waited}computes {_tokens(numbers['tokens'])}{recomputed}, in {spent}"


def _emitted(numbers: Mapping[str, Any]) -> str:
    count, seconds = numbers["output_tokens"], numbers["decode_s"]
    pace = f" in {_s(seconds)}, {number(1e3 * seconds / (count - 1))} ms each" if count > 1 else ""
    return f"{_tokens(count)}{pace}"


def _call_ended(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    tool = f" ({numbers['tool']})" if numbers["tool"] else ""
    return f"call {entry.call + 1} ends: {_emitted(numbers)}; now waits for {numbers['waits_for']}{tool}"


def _finished(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    return f"finished: {_emitted(numbers)}" if numbers else "finished"


def _decided(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    keep, verdict = numbers["keep"], numbers["verdict"]
    kept = f" all but {_tokens(keep)}" if verdict in ("swap", "discard") and keep > 0 else ""
    asked = _ASKED.get(numbers["asked"]) or _lacking(numbers["needed_blocks"], numbers["needed_by"])
    because = ", ".join(reasons(numbers["because"]))
    return f"policy, {asked}: {verdict}{kept}{f'  ({because})' if because else ''}"


def reasons(because: Mapping[str, float]) -> Iterator[str]:
    """The numbers of a verdict, with units: names of ``_WASTES`` are wastes, names that end in ``_s`` are seconds."""
    wastes = {words: because[name] for name, words in _WASTES.items() if name in because}
    for place, (words, waste) in enumerate(wastes.items()):
        yield f"{_amount(waste)} {words}" if place else f"wastes {_amount(waste)} token-seconds {words}"
    for name, value in because.items():
        if name in _PRICES:
            yield f"{name.replace('_', ' ')} = {value:.3g} s per token-second"
        elif name.endswith("_s"):
            yield f"{name.removesuffix('_s').replace('_', ' ')} = {_s(value)}"
        elif name not in _WASTES:
            yield f"{name.replace('_', ' ')} = {_amount(value)}"


def _lacking(blocks: int, by: str) -> str:
    needs = {DECODING: "the sessions that decode", WATERMARK: "the reserve of free blocks"}.get(by, f"session {by}")
    return f"{blocks} block{'' if blocks == 1 else 's'} lacking for {needs}"


def _moved(numbers: Mapping[str, Any]) -> str:
    way = "to the host" if numbers["direction"] == "out" else "back to the GPU"
    way = "from another replica" if numbers["from_replica"] else way
    return f"{_tokens(numbers['tokens'])} ({numbers['blocks']} block{'' if numbers['blocks'] == 1 else 's'}) {way}"


def _swapped(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    return f"copies {_moved(numbers)} in {_s(numbers['seconds'])}, while the batch waits"


def _copy_began(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    seconds = f", {_s(numbers['seconds'])}" if "seconds" in numbers else ""
    return f"begins to copy {_moved(numbers)} beside the batch{seconds}"


def _copied(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    return f"has copied {_moved(numbers)}"


def _answered(entry: SessionEvent, numbers: Mapping[str, Any]) -> str:
    where = ", on this replica" if entry.what == "adopted" else ""
    return f"the answer comes after {_s(numbers['pause_s'])} with {_tokens(numbers['returned_tokens'])}{where}"


def _tokens(count: int) -> str:
    return f"{count:,} token{'' if count == 1 else 's'}"


def _s(seconds: float) -> str:
    return f"{number(seconds)} s" if seconds >= 1 or seconds == 0 else f"{number(1e3 * seconds)} ms"
