"""docs/results.md: its tables of comparisons are what the files beside it say, cell by cell."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from tests.programs import load_program

from alter.comparison import read_comparison
from alter.reporting.markdown_text import to_markdown
from alter.reporting.run import gather

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
DOMAINS = ("social", "social-1000", "nlu", "assistant", "generation", "generation-more")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load_program("comparison_tables.py")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_tables_of_a_domain_are_those_of_its_file(program: ModuleType, domain: str) -> None:
    comparison = read_comparison(ROOT / "benchmarks" / "results" / "compare" / domain)
    assert program.put(PAGE, domain, program.tables(comparison)) == PAGE, (
        f"run: python benchmarks/comparison_tables.py benchmarks/results/compare/{domain} --into docs/results.md"
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_report_beside_a_domain_s_file_is_what_the_verb_writes(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder = Path("benchmarks/results/compare") / domain
    assert (folder / "report.md").read_text(encoding="utf-8") == to_markdown(gather([folder])), (
        f"run: alter report {folder} -o report.html --markdown {folder}/report.md"
    )


def test_tables_go_into_their_own_place(program: ModuleType) -> None:
    page = "a\n<!-- tables of x -->\n\nold\n\n<!-- end of tables -->\nb\n<!-- tables of y -->\n\n1\n\n<!-- end of tables -->\n"
    found = program.put(page, "x", "| new |")
    assert found == page.replace("old", "| new |")
    with pytest.raises(SystemExit, match="tables of z"):
        program.put(page, "z", "| new |")
