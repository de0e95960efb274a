"""``caesura trace``: look at traces, and make traces out of traces. ``-`` is a pipe, through which JSONL flows."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from caesura.cli.exit_codes import with_exit_codes

app = typer.Typer(
    help="Describe, convert, generate, fit, sample, filter, scale, merge and validate traces; - is a pipe.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class OnErrorOption(StrEnum):
    """What happens to a line that is wrong."""

    stop = "stop"
    skip = "skip"


TraceArgument = Annotated[str, typer.Argument(help="A trace file, - for standard input, or a shipped trace's name.")]
FormatOption = Annotated[str | None, typer.Option("--format", "-f", help="The trace's format [recognised by content].")]
Errors = Annotated[OnErrorOption, typer.Option("--on-error", help="Stop at what is wrong, or skip and count it.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(help="Counts the tokens of texts: words, chars:4, or the path of a tokenizer.json or its folder."),
]
TraceOut = Annotated[str, typer.Option("--out", "-o", help="Where to; .gz and .zst compress [standard output].")]
To = Annotated[str, typer.Option("--to", help="Format to write (`caesura trace formats`).")]
Seed = Annotated[int, typer.Option(min=0, help="Fixes every draw.")]
Many = Annotated[float, typer.Option(help="Times as many, or as long.")]


def _plainly() -> contextlib.AbstractContextManager[None]:
    return with_exit_codes("interrupted; nothing was written")


@app.command()
def formats() -> None:
    """List the trace formats."""
    with _plainly():
        from caesura.cli.terminal import show_list
        from traces.readers import all_formats

        rows = [(f.name, f.title, "yes" if f.write else "", ", ".join(sorted(f.lacks))) for f in all_formats().values()]
        show_list(("format", "what it is", "written", "cannot say"), rows)


@app.command()
def describe(
    trace: TraceArgument,
    json: Annotated[bool, typer.Option("--json", help="Every figure as JSON.")] = False,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures.")] = None,
    token_time: Annotated[
        str, typer.Option(help="Time a generated token takes, for concurrency: a trace does not say.")
    ] = "20 ms",
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Show what a trace is made of: arrivals, lengths, calls, pauses by tool, sharing, concurrency."""
    with _plainly():
        from caesura.trace.describe import describe_trace
        from caesura.trace.files import TraceInput

        describe_trace(TraceInput(trace, format, on_error.value, tokenizer), json, figures, token_time)


@app.command()
def convert(
    trace: TraceArgument,
    file: Annotated[str, typer.Argument(metavar="OUT", help="The new file; - is standard output.")] = "",
    out: TraceOut = "",
    to: To = "own",
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Write a trace in another format."""
    with _plainly():
        from caesura.errors import UserError
        from caesura.trace.files import PIPE, TraceInput, report_written, write_trace
        from traces.readers import convert

        if file and out:
            raise UserError(f"convert: two new files, {file} and {out}; name it once, after the trace or with --out")
        out = file or out or PIPE
        given = TraceInput(trace, format, on_error.value, tokenizer)
        if given.trace is None:
            write_trace(out, given.sessions(), to)
        else:
            report_written(out, convert(given.trace, out, to))
            given.report()


@app.command("filter")
def filter_trace(
    trace: TraceArgument,
    conditions: Annotated[
        list[str], typer.Argument(help="All must hold: kind=qa, 'prompt<4096', 'calls>=2', 'tool=Bash*'.")
    ],
    out: TraceOut = "-",
    to: To = "own",
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Keep the sessions for which every condition holds.

    Fields: arrival, prompt, calls, pauses, output, returned, context, pause, longest_pause, samples (numbers: seconds,
    tokens of the whole session, counts); id, kind, waits_for, tool, prefix (words, with * and ?).
    """
    with _plainly():
        from caesura.errors import UserError
        from caesura.trace.files import TraceInput, write_trace
        from caesura.trace.parts import some_of, warned_of_orphans
        from traces.filters import all_of

        try:
            holds = all_of(conditions)
        except ValueError as error:
            raise UserError(str(error)) from None
        sessions = TraceInput(trace, format, on_error.value, tokenizer).sessions()
        kept = some_of((session for session in sessions if holds(session)), "for which " + " and ".join(conditions))
        write_trace(out, warned_of_orphans(kept), to)


@app.command()
def sample(
    trace: TraceArgument,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="How many sessions.")] = None,
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Or which share of them.")] = None,
    seed: Seed = 0,
    out: TraceOut = "-",
    to: To = "own",
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Draw sessions without replacement; they keep their order and arrivals."""
    with _plainly():
        from caesura.errors import UserError
        from caesura.trace.files import TraceInput, write_trace
        from caesura.trace.parts import warned_of_orphans
        from traces.transform import sampled, some

        if (count is None) == (share is None):
            raise UserError("sample: give either --count or --share, such as --count 100")
        sessions = TraceInput(trace, format, on_error.value, tokenizer).sessions()
        part = sampled(sessions, share, seed) if share is not None else some(sessions, count or 1, seed)
        write_trace(out, warned_of_orphans(part), to)


@app.command()
def scale(
    trace: TraceArgument,
    rate: Many = 1.0,
    pauses: Many = 1.0,
    lengths: Many = 1.0,
    prompt: Many = 1.0,
    output: Many = 1.0,
    returned: Many = 1.0,
    out: TraceOut = "-",
    to: To = "own",
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Multiply arrival rate, pauses, and lengths (all, or prompts, outputs and returned tokens one by one)."""
    with _plainly():
        from caesura.errors import UserError
        from caesura.trace.files import TraceInput, write_trace
        from caesura.trace.parts import warned_of_no_arrivals
        from traces.transform import Scale, scaled

        try:
            by = Scale(rate, pauses, prompt * lengths, output * lengths, returned * lengths)
        except ValueError as error:
            raise UserError(f"scale: {error}") from None
        sessions = scaled(TraceInput(trace, format, on_error.value, tokenizer).sessions(), by)
        if rate != 1.0:
            sessions = warned_of_no_arrivals(sessions, "the trace", "a rate changes nothing, and ")
        write_trace(out, sessions, to)


@app.command()
def generate(
    generator: Annotated[
        Path | None, typer.Argument(help="A generator file; without one, InferCept's six augmentations.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="How many sessions.")] = None,
    duration: Annotated[str | None, typer.Option(help="Or how long they arrive, as in '10 min'.")] = None,
    rate: Annotated[float | None, typer.Option(min=1e-6, max=1e6, help="Sessions per second.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(metavar="KIND=W", help="Weight of one of the six augmentations; repeat it.")
    ] = None,
    seed: Seed = 0,
    out: TraceOut = "-",
    to: To = "own",
) -> None:
    """Draw a trace: sessions from distributions, arriving as the generator or --rate says."""
    with _plainly():
        from caesura.trace.files import working, write_trace
        from caesura.trace.generate import amount, generate_trace, generator_from

        wanted = amount(count, duration)
        file = generator_from(generator, weight or (), rate)
        with working("drawing"):
            sessions = generate_trace(file, wanted, seed)
        write_trace(out, sessions, to)


@app.command()
def fit(
    trace: TraceArgument,
    out: TraceOut = "-",
    page: Annotated[Path | None, typer.Option(help="An HTML page that shows how well it fits.")] = None,
    points: Annotated[
        int, typer.Option(min=0, max=1000, help="Quantiles of a curve where no distribution fits; 0: no curves.")
    ] = 41,
    seed: Seed = 0,
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Fit a generator to a trace: the shape of a workload, to share in place of its data."""
    with _plainly():
        from caesura.trace.files import TraceInput
        from caesura.trace.fit import fit_trace, write_fit

        write_fit(fit_trace(TraceInput(trace, format, on_error.value, tokenizer), points, seed), out, page)


@app.command()
def merge(
    traces: Annotated[list[str], typer.Argument(help="Two or more traces; one of them may be -.")],
    out: TraceOut = "-",
    to: To = "own",
    format: FormatOption = None,
    on_error: Errors = OnErrorOption.stop,
    tokenizer: Tokenizer = None,
) -> None:
    """Put traces together by arrival. They are held in memory; ids that occur twice get their trace's name."""
    with _plainly():
        from caesura.trace.files import TraceInput, write_trace
        from caesura.trace.parts import distinct_names, warned_of_no_arrivals
        from traces.transform import merged

        given = [TraceInput(trace, format, on_error.value, tokenizer) for trace in traces]
        named = zip(distinct_names(given), given, strict=True)
        parts = {name: list(warned_of_no_arrivals(one.sessions(), name)) for name, one in named}
        write_trace(out, merged(parts), to)


@app.command()
def validate(trace: TraceArgument, format: FormatOption = None, tokenizer: Tokenizer = None) -> None:
    """Read a trace to its end and list everything that is wrong or odd. Exit code 2 if anything is wrong."""
    with _plainly():
        from caesura.trace.parts import validate_trace

        validate_trace(trace, format, tokenizer)
