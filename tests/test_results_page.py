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
DOMAINS = (
    "social",
    "social-1000",
    "nlu",
    "assistant",
    "generation",
    "generation-more",
    "social-more",
    "nlu-more",
    "assistant-more",
)


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


@pytest.mark.parametrize(("document", "brief"), [("README.md", True), ("docs/results.md", False)])
def test_the_table_of_all_domains_is_what_the_files_say(document: str, brief: bool) -> None:
    summary = load_program("summary_table.py")
    text = (ROOT / document).read_text(encoding="utf-8")
    assert summary.put(text, summary.NAME, summary.table(brief=brief)) == text, (
        f"run: python benchmarks/summary_table.py{' --brief' * brief} --into {document}"
    )


def test_the_table_of_all_domains_says_what_comparisons_say() -> None:
    """Held against what `alter compare` itself computed of the same numbers."""
    summary = load_program("summary_table.py")
    cells = {domain.name: summary.rows_of(domain) for domain in summary.DOMAINS}
    for name in ("social", "nlu", "assistant"):
        comparison = read_comparison(ROOT / "benchmarks" / "results" / "compare" / name)
        asked = {(one.arm, one.against): one for one in comparison.differences}
        gain = comparison.arms["alter-lite"].summary["test"].delta_m
        assert gain is not None
        assert cells[name]["... in percent, mean over tasks (delta_m)"] == f"{gain.mean:+.1f} \u00b1 {gain.sd:.1f}"
        one = asked["alter-lite", "single-full"]
        assert cells[name]["one model less one fine-tuned model a task"].startswith(
            f"{one.difference:+.1f} ({one.by_seed[0]:+.1f}, "
        )


def test_tables_go_into_their_own_place(program: ModuleType) -> None:
    page = "a\n<!-- tables of x -->\n\nold\n\n<!-- end of tables -->\nb\n<!-- tables of y -->\n\n1\n\n<!-- end of tables -->\n"
    found = program.put(page, "x", "| new |")
    assert found == page.replace("old", "| new |")
    with pytest.raises(SystemExit, match="tables of z"):
        program.put(page, "z", "| new |")
