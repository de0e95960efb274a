"""The page of the recorded runs is renewed between its marks and nowhere else."""

from __future__ import annotations

from benchmarks.fidelity_page import BEGIN, END, FIGURES, PAGE, PROFILES, markdown, with_made
from benchmarks.profile_table import profile_rows
from caesura.results.text_table import TextTable


def test_only_what_lies_between_the_marks_is_renewed():
    page = f"# Title\n\n{BEGIN}\n\nold\n\n{END}\n\nrest\n"
    assert with_made(page, "new") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nrest\n"


def test_a_table_is_written_under_its_title():
    rows = TextTable("Errors", ["system", "mean"], [["vllm", "+1.0"]])
    assert markdown(rows) == "Errors:\n\n| system | mean |\n| --- | ---: |\n| vllm | +1.0 |"


def test_the_page_has_both_marks_and_its_figures():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert [page.count(mark) for mark in PROFILES] == [1, 1]
    for name in FIGURES:
        assert f"figures/fidelity-{name}.png" in page
        assert (PAGE.parent / "figures" / f"fidelity-{name}.png").stat().st_size > 10_000


def test_every_measured_profile_has_its_column():
    rows = profile_rows()
    names = ("llama-3.1-8b", "llama-3.1-8b-131k", "llama-3.1-8b-card-2", "vicuna-13b", "vicuna-13b-card-3")
    assert rows.headings[1:] == [f"`h200/{name}`" for name in names]
    by_name = {row[0]: row[1:] for row in rows.rows}
    assert by_name["random batches not fitted, %"][0] in PAGE.read_text(encoding="utf-8")
    assert by_name["random batches"][:2] == ["240", "320"]
    assert all(len(row) == 6 for row in rows.rows)
