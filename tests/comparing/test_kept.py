"""What earlier calls left: own arms that changed, failures that nobody mended, answers to rows that are others now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.comparing.conftest import HOT, Compared

from alter.comparing.choice import own_arms
from alter.comparing.run import compare
from alter.errors import CheckpointError


def test_an_own_arm_that_changed_is_refused(compared: Compared, copied: Path) -> None:
    own = own_arms({"mine": {"stages": {"stage2": None}}}, where="arms.yaml")
    compare(compared.recipe, output_dir=copied, arms=["mine"], own=own, resume=True)
    own = own_arms({"mine": {"max_length": 16, "stages": {"stage2": None}}}, where="arms.yaml")
    told: list[str] = []
    for asked in (["majority", "mine"], ["majority"]):  # not asked for it would stand in the tables under its new title
        with pytest.raises(
            CheckpointError, match=r"arms/mine/seed0: was run with other settings than the arm 'mine' has now; give"
        ):
            compare(compared.recipe, output_dir=copied, arms=asked, own=own, resume=True, told=told.append)
    assert told == [], "before anything is run"


def test_what_failed_before_is_still_told_where_nobody_asked_for_it_again(compared: Compared, copied: Path) -> None:
    """Else the mean of the seeds that are left would look like that of all."""
    own = own_arms(HOT, where="arms.yaml")
    found = compare(compared.recipe, output_dir=copied, arms=["majority"], own=own, resume=True)
    assert found.arms["hot"].failed == compared.result.arms["hot"].failed
    again = compare(compared.recipe, output_dir=copied, arms=["hot"], own=own, seeds=[1], resume=True)
    assert again.arms["hot"].failed.startswith(f"{found.arms['hot'].failed}\nseed 1: stage1, step ")
    assert again.arms["hot"].failed.count("seed 0: ") == again.arms["hot"].failed.count("seed 1: ") == 1
    assert "hot" not in compare(compared.recipe, output_dir=copied, arms=["majority"], resume=True).arms, "nobody describes it"


@pytest.mark.parametrize("change", ["a line less", "another target"])
def test_arms_that_were_scored_on_other_rows_are_not_compared(compared: Compared, copied: Path, change: str) -> None:
    path = copied / "arms" / "multi-full" / "seed0" / "predictions" / "test" / "mood.jsonl"
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    other = json.dumps({**json.loads(first), "target": "neither"})
    path.write_text("\n".join(lines if change == "a line less" else [other, *lines]), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"the arms \S+ and multi-full were scored on different test rows of the task 'mood'"
    ):
        compare(compared.recipe, output_dir=copied, arms=["majority"], resume=True)
