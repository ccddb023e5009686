"""The tickets that ship with the package are what their GUIDE.md says, and the test tickets share no template with the others."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import alter.demo
from alter.demo.run import demo_recipe
from alter.tasks.validate import validate_recipe

FOLDER = Path(alter.demo.__file__).parent / "tickets"
NUM_ROWS = {"train": 400, "validation": 100, "test": 120}
COLUMNS = ("text", "intent", "area", "urgency", "sentiment", "next_action", "churn_risk", "subject", "reply", "hard")
TASKS = COLUMNS[1:7]

# Everyday phrases, not templates: the runs of six words that a test ticket shares with a training ticket.
SHARED_SIX_WORDS = {
    "three years i ve been told",
    "i can send a photo of",
    "can send a photo of my",
    "on the first of each month",
}


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(text: str, length: int) -> set[str]:
    found = words(text)
    return {" ".join(found[start : start + length]) for start in range(len(found) - length + 1)}


def labels_of_guide() -> dict[str, set[str]]:
    """Return task -> labels as GUIDE.md lists them: in tables for most, in the running text for two."""
    guide = (FOLDER / "GUIDE.md").read_text(encoding="utf-8")
    sections = re.split(r"\n\*\*(\w+)\*\*", guide.split("## The labels")[1].split("## How people write")[0])
    found = {}
    for name, body in zip(sections[1::2], sections[2::2], strict=True):
        in_table = set(re.findall(r"^\| (\w+) \|", body, flags=re.MULTILINE)) - {"label"}
        found[name] = in_table or set(re.findall(r"`(\w+)`", body))
    return found


@pytest.mark.parametrize("split", NUM_ROWS)
def test_every_row_has_the_columns_of_the_guide(split: str) -> None:
    found = rows(split)
    assert len(found) == NUM_ROWS[split]
    for row in found:
        assert tuple(row) == COLUMNS
        assert all(isinstance(row[column], str) and row[column] == row[column].strip() != "" for column in COLUMNS[:-1])
        assert isinstance(row["hard"], bool)
        assert 4 <= len(row["text"].split()) <= 120
        assert 3 <= len(row["subject"].split()) <= 9
        assert not row["subject"].endswith(".")
        assert 8 <= len(row["reply"].split()) <= 24
        assert row["reply"].endswith((".", "?"))
        assert "!" not in row["reply"]


def test_the_labels_are_those_of_the_guide_and_of_the_recipe_in_every_split() -> None:
    guide = labels_of_guide()
    specs = {spec.name: set(spec.labels or []) for spec in demo_recipe().tasks}
    assert tuple(specs) == TASKS
    assert guide == specs
    for split in NUM_ROWS:
        for task in TASKS:
            assert {row[task] for row in rows(split)} == guide[task], f"{split} {task}"


def test_no_label_is_nearly_all_or_nearly_nothing() -> None:
    for split, number in NUM_ROWS.items():
        for task in TASKS:
            counts = Counter(row[task] for row in rows(split))
            assert min(counts.values()) >= 0.07 * number, f"{split} {task}"
            assert max(counts.values()) <= 0.85 * number, f"{split} {task}"


def test_no_text_and_no_wording_stands_twice() -> None:
    texts = [" ".join(words(row["text"])) for split in NUM_ROWS for row in rows(split)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


@pytest.mark.parametrize("split", NUM_ROWS)
def test_at_least_a_fifth_is_hard(split: str) -> None:
    assert sum(row["hard"] for row in rows(split)) >= 0.2 * NUM_ROWS[split]


def test_the_test_tickets_share_no_template_with_training_or_validation_tickets() -> None:
    known = [row["text"] for split in ("train", "validation") for row in rows(split)]
    sixes, eights = (set().union(*(runs(text, length) for text in known)) for length in (6, 8))
    for row in rows("test"):
        assert runs(row["text"], 6) & sixes <= SHARED_SIX_WORDS
        assert not runs(row["text"], 8) & eights


def test_hardly_a_test_ticket_shares_even_five_words_in_a_row_with_a_training_ticket() -> None:
    known = set().union(*(runs(row["text"], 5) for row in rows("train")))
    shared = [len(runs(row["text"], 5) & known) for row in rows("test")]
    assert max(shared) <= 4
    assert sum(number > 0 for number in shared) <= 0.1 * len(shared)


def test_no_test_ticket_is_a_training_ticket_in_other_words() -> None:
    known = [set(words(row["text"])) for split in ("train", "validation") for row in rows(split)]
    for row in rows("test"):
        mine = set(words(row["text"]))
        if len(mine) >= 10:
            assert max(len(mine & other) / len(mine | other) for other in known) < 0.4, row["text"]


def test_addresses_are_invented() -> None:
    for split in NUM_ROWS:
        for row in rows(split):
            for address in re.findall(r"\S+@(\S+)", row["text"]):
                assert address.strip(".,;:)!?") == "example.com"


def test_validation_finds_nothing_to_say() -> None:
    report = validate_recipe(demo_recipe())
    assert (report.problems, report.warnings) == ([], [])
    assert {name: summary.rows for name, summary in report.summaries.items()} == dict.fromkeys(TASKS, NUM_ROWS)
