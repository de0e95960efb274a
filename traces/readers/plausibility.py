"""Warn of numbers that are possible but look as if they were given in another unit."""

from __future__ import annotations

import math
import operator
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from traces.session import Session

if TYPE_CHECKING:
    from traces.readers.request_columns import Requests
    from traces.readers.session_columns import SessionColumns

FEWEST_ARRIVALS, FEWEST_PAUSES = 20, 10
MOST_PAUSES = 10_000
MOST_SESSIONS_A_SECOND = 1_000.0
LONGEST_GAP = 100.0
LONGEST_TOOL_PAUSE, LONGEST_USER_PAUSE = 600.0, 7_200.0
LONGEST_PAUSE = LATEST_BEGIN = 30 * 86_400.0
LONGEST_PROMPT = 20_000_000


class Plausibility:
    """Collects what it takes to warn of wrong units, session by session.

    Recorded tools take about a second in the median and people a minute or two (MORI, AgentCgroup, TraceLab); no
    published trace has a median above ten minutes for tools, or two hours for people.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.sessions = 0
        self.backwards = 0
        self.follows_rows = False
        self.first, self.last, self.before = math.inf, -math.inf, -math.inf
        self.tool_pauses, self.user_pauses = array("d"), array("d")
        self.longest_pause: tuple[float, str] = (0.0, "")
        self.longest_prompt = 0
        self.following_turns = self.overlapping_turns = self.turns_back = 0

    def see_rows(self, times: list[float]) -> None:
        """Take note of the times of rows whose sessions come in the order of their last turns, not of arrival."""
        self.follows_rows = True
        if times:
            self._compare(times)

    def see_requests(self, requests: Requests | SessionColumns) -> None:
        """Take note of sessions that came as columns."""
        arrivals, prompts = requests.arrivals, requests.prompts
        if not arrivals:
            return
        self.sessions += len(arrivals)
        if not self.follows_rows:
            self._compare(arrivals)
        self.first, self.last = min(self.first, *arrivals), max(self.last, *arrivals)
        self.longest_prompt = max(self.longest_prompt, max(prompts))

    def see_columns(self, columns: SessionColumns) -> None:
        """Take note of sessions of several calls that came as columns."""
        self.see_requests(columns)
        seen = self.user_pauses if columns.waits_for == "user" else self.tool_pauses
        durations = [duration for duration in columns.durations if duration is not None]
        seen.extend(durations[: MOST_PAUSES - len(seen)])
        longest = max(durations, default=0.0)
        if longest > self.longest_pause[0]:
            call = columns.durations.index(longest)
            self.longest_pause = (longest, columns.ids[bisect_right(columns.begins, call) - 1])

    def see(self, session: Session) -> None:
        """Take note of a session."""
        self.sessions += 1
        arrival = session.arrival
        if not self.follows_rows:
            if arrival < self.before:
                self.backwards += 1
            self.before = arrival
        if arrival < self.first:
            self.first = arrival
        if arrival > self.last:
            self.last = arrival
        if session.prompt > self.longest_prompt:
            self.longest_prompt = session.prompt
        for call in session.calls:
            pause = call.pause
            if pause is not None:
                seen = self.user_pauses if pause.waits_for == "user" else self.tool_pauses
                if len(seen) < MOST_PAUSES:
                    seen.append(pause.duration)
                if pause.duration > self.longest_pause[0]:
                    self.longest_pause = (pause.duration, session.id)

    def see_turns(self, following: int, overlapping: int) -> None:
        """Take note of turns that follow others, and of those that begin before the response above them has ended."""
        self.following_turns += following
        self.overlapping_turns += overlapping

    def warnings(self) -> list[str]:
        """The warnings, one sentence each."""
        return [
            f"{self.file}: {text}"
            for text in (
                *self._about_arrivals(),
                *self._about_turns(),
                *self._about_pauses(),
                *self._about_prompts(),
            )
        ]

    def _compare(self, times: list[float]) -> None:
        self.backwards += sum(map(operator.lt, times, [self.before, *times[:-1]]))
        self.before = times[-1]

    def _about_arrivals(self) -> list[str]:
        found = []
        span = self.last - self.first
        if self.sessions >= FEWEST_ARRIVALS and span > 0:
            rate = (self.sessions - 1) / span
            if rate > MOST_SESSIONS_A_SECOND:
                found.append(
                    f"{rate:,.0f} sessions arrive a second; expected at most {MOST_SESSIONS_A_SECOND:,.0f}. "
                    "Check that the times are not given in seconds where the format has milliseconds or nanoseconds"
                )
            if 1 / rate > LONGEST_GAP:
                found.append(
                    f"sessions arrive {1 / rate:,.0f} s apart on average; expected at most {LONGEST_GAP:,.0f} s. "
                    "Check that the times are not given in milliseconds where the format has seconds"
                )
        if LATEST_BEGIN < self.first < math.inf:
            found.append(
                f"the first session arrives after {self.first:,.0f} s; expected within 30 days. "
                "Check that times count from the trace's start, in the unit of the format"
            )
        if self.backwards:
            what = "rows are earlier than" if self.follows_rows else "sessions arrive before"
            found.append(f"{self.backwards} {what} the one above them; they are kept as they are")
        return found

    def _about_turns(self) -> list[str]:
        found = []
        if self.turns_back:
            found.append(
                f"{self.turns_back} turns begin before the turn above them in their session; "
                "the pauses before them are 0 s"
            )
        overlapping, following = self.overlapping_turns, self.following_turns
        if following >= FEWEST_PAUSES and overlapping * 2 > following:
            found.append(
                f"{overlapping} of {following} turns begin before the response above them has ended. "
                "Check that response times are not given in milliseconds where the format has seconds"
            )
        return found

    def _about_pauses(self) -> list[str]:
        found = []
        for waits_for, seen, longest in (
            ("tool", self.tool_pauses, LONGEST_TOOL_PAUSE),
            ("user", self.user_pauses, LONGEST_USER_PAUSE),
        ):
            if len(seen) >= FEWEST_PAUSES:
                median = sorted(seen)[len(seen) // 2]
                if median > longest:
                    found.append(
                        f"half of the {waits_for} pauses last {median:,.0f} s or more; expected a median below "
                        f"{longest:,.0f} s. Check that they are not given in milliseconds where the format has seconds"
                    )
        if self.longest_pause[0] > LONGEST_PAUSE and not found:
            seconds, id = self.longest_pause
            found.append(
                f"session {id!r} pauses for {seconds:,.0f} s; expected at most {LONGEST_PAUSE:,.0f} s (30 days)"
            )
        return found

    def _about_prompts(self) -> list[str]:
        if self.longest_prompt <= LONGEST_PROMPT:
            return []
        return [f"a prompt has {self.longest_prompt:,} tokens; expected at most {LONGEST_PROMPT:,}"]
