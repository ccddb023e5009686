"""Train the example and measure two honest yardsticks beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from alter.baselines import BASELINES
from alter.errors import ConfigError
from alter.evaluation import Reference, score_task, split_scores
from alter.recipe import Recipe, load_recipe
from alter.results import Results, SplitScores, TaskScore, write_results
from alter.tasks.read import SPLITS
from alter.tasks.spec import TaskSpec
from alter.tensors import write_error
from alter.training.observer import Observer
from alter.training.prepare import Rows, read_rows
from alter.training.run import Run, train
from alter.training.rundir import RESULTS, RunDirectory

RECIPE = Path(__file__).parent / "recipe.yaml"
WRITING = RECIPE.with_name("writing.yaml")
TICKETS = RECIPE.parent / "tickets"
LOCK = ".lock"
YARDSTICKS = ("majority", "tfidf")


def demo_recipe(overrides: list[str] | None = None) -> Recipe:
    """Return the example's recipe."""
    return load_recipe(RECIPE, overrides)


def run_demo(
    output_dir: str | Path,
    *,
    overrides: list[str] | None = None,
    again: bool = False,
    observer: Observer | None = None,
    told: Callable[[str], None] = lambda message: None,
) -> Run:
    """Run the example from end to end; one that has finished is read, one that was stopped goes on.

    Args:
        output_dir: the run directory.
        overrides: `key.path=value` settings over the example's recipe.
        again: delete an earlier example in `output_dir` first.
        observer: is told how training goes.
        told: is told what else happens, in a sentence.

    Raises:
        ConfigError: `again` was asked for a folder that holds no run of the example.
        CheckpointError: another process is training there.
    """
    return _run(demo_recipe(overrides), Path(output_dir), again=again, observer=observer, told=told)


def writing_recipe(overrides: list[str] | None = None) -> Recipe:
    """Return the recipe of the example's second part: a text to write."""
    return load_recipe(WRITING, overrides)


def run_writing(
    output_dir: str | Path,
    *,
    overrides: list[str] | None = None,
    again: bool = False,
    observer: Observer | None = None,
    told: Callable[[str], None] = lambda message: None,
) -> Run:
    """Run the example's second part, a model that writes subject lines and replies; see `run_demo`."""
    return _run(writing_recipe(overrides), Path(output_dir), again=again, observer=observer, told=told)


def _run(recipe: Recipe, folder: Path, *, again: bool, observer: Observer | None, told: Callable[[str], None]) -> Run:
    if again and folder.exists():
        _delete(folder)
    run = train(recipe, output_dir=folder, resume=(folder / "recipe.yaml").exists(), observer=observer)
    if run.results.baselines:
        return run
    told("measuring the yardsticks: majority, TF-IDF")
    results = run.results.model_copy(update={"baselines": yardsticks(recipe)})
    try:
        write_results(results, folder / RESULTS)
    except OSError as error:
        raise write_error(error, folder / RESULTS) from error
    return Run(folder=folder, results=results)


def _delete(folder: Path) -> None:
    """Delete what an earlier run of the example left, and nothing else; the run's lock is held meanwhile, and stays."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, no run directory, so --again does not delete it; choose another --output-dir")
    if all(path.name == LOCK for path in folder.iterdir()):
        return
    saved = folder / RECIPE.name
    if not saved.exists():
        raise ConfigError(
            f"{folder}: is no run directory ({RECIPE.name} is missing), so --again does not delete it; choose "
            f"another --output-dir"
        )
    before = load_recipe(saved)
    if not all(_reads_tickets(task) for task in before.tasks):
        raise ConfigError(
            f"{folder}: holds the run '{before.name}' on rows other than the example's ({TICKETS}), so --again does not delete "
            f"it; choose another --output-dir"
        )
    with RunDirectory(folder, before, resume=True):  # refuses where another process is training
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def _reads_tickets(task: TaskSpec) -> bool:
    """Return whether a task reads the tickets that ship with this package, each split its own file."""
    if task.source is None or task.source.hub is not None:
        return False
    given = {split: getattr(task.source, split) for split in SPLITS}
    return all(path and Path(path).resolve() == (TICKETS / f"{split}.jsonl").resolve() for split, path in given.items())


def yardsticks(recipe: Recipe) -> dict[str, dict[str, SplitScores]]:
    """Fit each yardstick on training rows, choose its settings on validation rows, score it on both splits."""
    rows = read_rows(recipe)
    return {name: _fit_and_score(rows, name, seed=recipe.seed) for name in YARDSTICKS}


def _fit_and_score(rows: Rows, yardstick: str, *, seed: int) -> dict[str, SplitScores]:
    """Fit a yardstick once per task and score it on validation and test rows; a task without test rows has no test score."""
    fit_predict = BASELINES.get(yardstick)
    scored: dict[str, dict[str, TaskScore]] = {"validation": {}, "test": {}}
    for spec in rows.specs:
        splits = {split: rows.splits[split][spec.name] for split in ("train", "validation", "test")}
        inputs = [*splits["validation"], *splits["test"]]
        answers = iter(fit_predict(spec, splits["train"], splits["validation"], inputs, seed=seed))
        for split in ("validation", "test"):
            given = [next(answers) for _ in splits[split]]
            references: list[Reference] = [
                list(example.references) or example.label for example in splits[split] if example.label is not None
            ]
            if references:
                scored[split][spec.name] = score_task(spec, given, references)
    specs = {spec.name: spec for spec in rows.specs}
    return {split: split_scores(found, specs) for split, found in scored.items() if found}


def stage_scores(results: Results) -> dict[str, dict[str, float]]:
    """Return column -> task -> test score: yardsticks first, then the stages."""
    columns = {name: {task: s.score for task, s in found["test"].tasks.items()} for name, found in results.baselines.items()}
    for stage, result in sorted(results.stages.items()):
        if result.test is not None:
            columns[stage] = {task: score.score for task, score in result.test.tasks.items()}
    return columns


__all__ = ["RECIPE", "demo_recipe", "run_demo", "run_writing", "stage_scores", "writing_recipe", "yardsticks"]
