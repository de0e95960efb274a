"""``caesura explain``: what happened to one session of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caesura.cli.exit_codes import with_exit_codes


def explain(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a comparison's with --system, --load and --seed.")],
    session: Annotated[
        str | None,
        typer.Option(help="An id, or slowest, median, most-queued, most-recomputed, most-swapped, most-preempted."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="Which system's run of a comparison.")] = None,
    load: Annotated[float | None, typer.Option(help="At which load.")] = None,
    seed: Annotated[int | None, typer.Option(help="With which seed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw where its context was into this file (.png, .svg).")] = None,
) -> None:
    """Tell what happened to one session's context, decision by decision; without --session, list some sessions."""
    with with_exit_codes("interrupted; nothing was written"):
        from rich.console import Console

        from caesura.cli.terminal import page
        from caesura.explanation import explanation as explaining
        from caesura.explanation.text import candidate_table, show
        from caesura.runs.run_folder import json_text

        folder = explaining.find_run(run, system, load, seed)
        if session is None:
            console = page()
            console.print(f"Sessions of {folder} to ask about", style="bold", highlight=False)
            console.print(candidate_table(explaining.candidates(folder)))
            return
        errors = Console(stderr=True)
        with errors.status("Replaying the run ...") if errors.is_terminal else errors:
            found = explaining.explain(folder, session)
        if figure is not None:
            from caesura.runs.run_folder import write_file

            write_file(figure, lambda draft: found.figure().savefig(draft, format=figure.suffix.lstrip(".") or "png"))
        if as_json:
            print(json_text(found.as_json()), end="")
        else:
            show(found, page())
