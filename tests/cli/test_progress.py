"""What training prints while it runs, on a terminal and where there is none."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from alter.cli.pretrain import PretrainProgressBar
from alter.cli.progress import LEGEND, TerminalProgress
from alter.pretraining.observer import HeldOut
from alter.results import SplitScores, TaskScore
from alter.training.observer import StepReport


def scores(average: float) -> SplitScores:
    score = TaskScore(score=average, metric="accuracy", metrics={"accuracy": average}, num_examples=4)
    return SplitScores(average=average, tasks={"mood": score})


def report(step: int, loss: float) -> StepReport:
    return StepReport(
        stage="stage1",
        step=step,
        num_steps=10,
        epoch=0.1,
        loss=loss,
        losses={},
        learning_rates={},
        grad_norm=1.0,
        rows_per_second=1.0,
    )


@pytest.fixture(params=[False, True], ids=["plain", "terminal"])
def lines(request: pytest.FixtureRequest) -> list[str]:
    """Return the lines that two stages leave on a console."""
    stream = io.StringIO()
    progress = TerminalProgress(Console(file=stream, force_terminal=request.param, width=100, highlight=False))
    progress.stage_started("stage1", num_steps=10, first_step=0, trainable=1)
    progress.validated("stage1", 2, scores(50.0), best=True, loss=0.75)
    progress.logged(report(4, 0.5))
    progress.validated("stage1", 4, scores(25.0), best=False, loss=0.5)
    progress.stage_started("stage2", num_steps=1, first_step=0, trainable=1200)
    progress.validated("stage2", 1, scores(50.0), best=True, loss=0.25)
    progress.closed()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line.rstrip() for part in plain.splitlines() for line in part.split("\r")]


def test_a_run_after_another_draws_its_own_bar() -> None:
    progress = TerminalProgress(Console(file=io.StringIO(), force_terminal=True, width=100))
    for _ in range(2):
        progress.stage_started("stage1", num_steps=10, first_step=0, trainable=1)
        assert progress.progress.live.is_started
        assert [task.total for task in progress.progress.tasks] == [10]
        progress.closed()
        assert not progress.progress.live.is_started
        assert progress.progress.tasks == []
    progress.closed()


def test_a_line_has_the_training_loss_and_the_scores(lines: list[str]) -> None:
    assert "  step     2  loss 0.750  average 50.00 *  mood 50.0" in lines
    assert "  step     4  loss 0.500  average 25.00    mood 25.0" in lines
    assert "  step     1  loss 0.250  average 50.00 *  mood 50.0" in lines


def test_runs_on_the_same_rows_warn_of_them_once() -> None:
    stream = io.StringIO()
    progress = TerminalProgress(Console(file=stream, width=100, highlight=False))
    for seed in (0, 1):
        progress.warned("two rows are cut")
        progress.warned(f"seed {seed} answers alike")
        progress.closed()
    told = stream.getvalue()
    assert told.count("two rows are cut") == 1
    assert told.count("warning:") == 3


def test_what_the_line_shows_is_explained_once_before_the_first(lines: list[str]) -> None:
    assert lines.count(LEGEND) == 1
    assert "*: the stage's best so far" in LEGEND
    assert lines.index(LEGEND) < lines.index("  step     2  loss 0.750  average 50.00 *  mood 50.0")


def test_the_mark_of_pretraining_is_explained_once_too() -> None:
    stream = io.StringIO()
    bar = PretrainProgressBar(Console(file=stream, width=100, highlight=False))
    bar.started(first_step=0, max_steps=1, max_seconds=None, trainable=2, total=1)
    for step in (1, 2):
        bar.measured(HeldOut(step=step, seconds=1.0, loss=2.0, bits_per_character=1.0), best=step == 1)
    bar.closed()
    assert stream.getvalue().splitlines() == [
        "1 step, 1 parameter, 2 of them trained",
        "  (*: the best held-out loss so far)",
        "  step      1        1 s  held-out loss 2.0000  1.0000 bits per character *",
        "  step      2        1 s  held-out loss 2.0000  1.0000 bits per character",
    ]


def test_one_is_no_plural(lines: list[str]) -> None:
    assert "stage1: 10 steps, 1 trainable parameter" in lines
    assert "stage2: 1 step, 1,200 trainable parameters" in lines
