"""Run a comparison: every arm with every seed, finished ones kept, then one file that says it all.

recipe -> arms -> a run directory for each arm, seed (and task) -> compare.json, compare.md
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from alter.backbones._load import load_base
from alter.checkpoint import Loaded
from alter.comparing.arms import ARMS, OUTSIDE, Arm, has_stage2
from alter.comparing.borrowed import arrow, filled_in, fitting, lora_in, runs_of
from alter.comparing.choice import arm_recipe, choose, main_arm
from alter.comparing.collect import Done, collect
from alter.comparing.files import drop_states, guarded
from alter.comparing.kept import check_own, failures_before, seeds_of
from alter.comparing.matched import matched_rank, matched_width
from alter.comparing.scored import ablated, score, untrained, yardstick
from alter.comparing.tables import markdown
from alter.comparison import NAME, Comparison, write_comparison
from alter.errors import ConfigError, TrainingError
from alter.recipe import Recipe, load_recipe
from alter.results import Results, write_results, write_text
from alter.training.observer import Observer
from alter.training.prepare import Rows, read_rows
from alter.training.run import environment, train
from alter.training.rundir import RECIPE, RESULTS, RunDirectory
from alter.training.state import checkpoints_in

PAGE = "compare.md"


@dataclass(kw_only=True)
class Comparing:
    """A comparison at work.

    Attributes:
        recipe: what is compared.
        folder: where everything goes.
        arms: the arms, in the order of the tables.
        seeds: the seeds.
        observer: is told how each run's training goes.
        told: is told of each arm, in a sentence.
    """

    recipe: Recipe
    folder: Path
    arms: Sequence[Arm]
    seeds: Sequence[int]
    observer: Observer | None
    told: Callable[[str], None]
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    done: dict[str, dict[int, Done]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _rows: dict[int, Rows] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse an arm whose settings fit no recipe, or whose tasks are others, before any arm is trained.

        Raises:
            ConfigError: there is one.
        """
        names = sorted(task.name for task in self.recipe.tasks)
        for arm in self.arms:
            if arm.kind in ("train", "per-task"):
                for task in self._tasks(arm):
                    found = sorted(one.name for one in arm_recipe(self.recipe, arm, seed=self.seeds[0], task=task).tasks)
                    if task is None and found != names:
                        raise ConfigError(
                            f"arm {arm.name}: its tasks are {found} and the recipe's {names}, so their averages would not compare; a list "
                            f"is replaced whole: give all tasks, each with all of its settings"
                        )

    def run(self) -> None:
        """Run all arms; one whose training diverges is noted and left behind.

        Raises:
            TrainingError: the disk is full, or the folder cannot be written.
        """
        total = len(self.arms) * len(self.seeds)
        by_need = sorted(
            self.arms,
            key=lambda arm: (arm.kind == "ablation", arm.name == main_arm(self.recipe), (arm.base or arm.loras) is not None),
        )
        # What others build on comes first: stage 1, then the method and the gates on it, then changes of the trained method.
        for number, (seed, arm) in enumerate(itertools.product(self.seeds, by_need), start=1):
            self.told(f"{number}/{total}  {arm.name}, seed {seed}: {arm.title}")
            try:
                self._run(arm, seed)
            except TrainingError as error:
                if isinstance(error.__cause__, OSError | SafetensorError):  # a full disk is no arm's fault
                    raise
                self.failed.setdefault(arm.name, {})[seed] = str(error)
                self.told(f"{arm.name}, seed {seed} failed: {error}")
            else:
                self.done.setdefault(arm.name, {})[seed] = self._left(arm, seed)

    def failures(self) -> dict[str, str]:
        """Return arm -> what failed, by seed."""
        return {arm: "\n".join(f"seed {seed}: {why}" for seed, why in sorted(of.items())) for arm, of in self.failed.items()}

    def keep_finished(self, known: Sequence[Arm]) -> list[Arm]:
        """Add what earlier calls finished, or failed at, and nobody asked for now.

        Returns:
            all arms that there is something of, in the order of `known`.
        """
        for arm in known:
            for seed in seeds_of(self.folder, arm.name):
                left = self._left(arm, seed)
                if seed not in self.done.get(arm.name, {}) and all((folder / RESULTS).exists() for folder in left.folders):
                    self.done.setdefault(arm.name, {})[seed] = left
        asked = set(itertools.product((arm.name for arm in self.arms), self.seeds))
        for name, seed, message in failures_before(self.folder):
            if (name, seed) not in asked and seed not in self.done.get(name, {}):
                self.failed.setdefault(name, {})[seed] = message
        return [arm for arm in known if arm.name in self.done or arm.name in self.failed]

    def _place(self, arm: str, seed: int) -> Path:
        return self.folder / "arms" / arm / f"seed{seed}"

    def _tasks(self, arm: Arm) -> list[str] | list[None]:
        """Return the tasks that an arm trains one at a time, or None for all at once."""
        return [task.name for task in self.recipe.tasks] if arm.kind == "per-task" else [None]

    def _left(self, arm: Arm, seed: int) -> Done:
        """Return what an arm leaves once it is over."""
        place = self._place(arm.name, seed)
        return Done(
            folders=[place if task is None else place / task for task in self._tasks(arm)],
            per_task=arm.kind == "per-task",
            trained=arm.kind in ("train", "per-task"),
            changed=self._place(main_arm(self.recipe), seed) if arm.kind == "ablation" else None,
        )

    def _run(self, arm: Arm, seed: int) -> None:
        folder = self._place(arm.name, seed)
        if arm.kind in ("yardstick", "untrained", "ablation", "routed"):
            if not (folder / RESULTS).exists():
                self._only_score(arm, seed, folder)
        else:
            for task in self._tasks(arm):
                self._train(arm, seed, folder if task is None else folder / task, task=task)

    def _train(self, arm: Arm, seed: int, folder: Path, *, task: str | None) -> None:
        rank = None if arm.as_large is None else self._matched(arm.as_large)
        recipe = arm_recipe(self.recipe, arm, seed=seed, rank=rank, task=task, peft=self._peft(arm, seed))
        source = "stage1" if arm.name == main_arm(self.recipe) and has_stage2(self.recipe) else arm.base
        if source is not None:
            taken = self._place(source, seed)
            if not (taken / RESULTS).exists():
                raise TrainingError(f"needs the arm {source} with this seed, which failed; see its message")
            recipe = recipe.model_copy(update={"stage1_from": str(taken.resolve())})
        begun = (folder / RECIPE).exists() and ((folder / RESULTS).exists() or bool(checkpoints_in(folder / "checkpoints")))
        if begun and (source or arm.loras) is not None:  # it is in it already: where it came from may have been moved since
            before = load_recipe(folder / RECIPE)
            recipe = recipe.model_copy(update={"stage1_from": before.stage1_from, "peft": before.peft})
        gc.collect()  # optimizers lie in circles: the model of the arm before would stay beside this one's
        train(recipe, output_dir=folder, resume=begun, observer=self.observer)
        drop_states(folder, keep=arm.name == "stage1")

    def _peft(self, arm: Arm, seed: int) -> dict[str, Any] | None:
        """Return what the base, or the arm whose LoRAs it weighs, adds to a peer's block peft; None for other arms."""
        if arm.loras is not None:
            runs = runs_of(self._place(arm.loras, seed), self.recipe)
            return {"adapters": {task: str(lora_in(run, task).resolve()) for task, run in runs.items()}}
        if arm.family != "peer":
            return None
        base, _ = load_base(self.recipe.model_name_or_path, revision=self.recipe.revision)
        return filled_in(arm.name, base, self.recipe, arm.settings(self.recipe)["peft"])

    def _matched(self, what: Literal["rank", "width"]) -> int:
        if what not in self._sizes:
            base, _ = load_base(self.recipe.model_name_or_path, revision=self.recipe.revision)
            self._sizes[what] = (matched_rank if what == "rank" else matched_width)(base, self.recipe)
        return self._sizes[what]

    def rows_of(self, seed: int) -> Rows:
        """Return the rows of a seed, which decides what a cap keeps."""
        if seed not in self._rows:
            self._rows = {seed: read_rows(self.recipe.model_copy(update={"seed": seed}))}
        return self._rows[seed]

    def _only_score(self, arm: Arm, seed: int, folder: Path) -> None:
        """Score an arm that trains nothing, and write its results."""
        rows = self.rows_of(seed)
        if arm.yardstick is not None:
            splits = yardstick(arm.yardstick, rows, seed=seed, folder=folder)
        else:
            batch_size = self.recipe.train.per_device_eval_batch_size
            splits = score(self._model_of(arm, seed, rows), rows, folder=folder, batch_size=batch_size)
        results = Results(
            recipe=f"{self.recipe.name}-{arm.name}",
            model=self.recipe.model_name_or_path,
            seed=seed,
            splits=splits,
            environment=environment(),
        )
        guarded(folder / RESULTS, lambda: write_results(results, folder / RESULTS))

    def _model_of(self, arm: Arm, seed: int, rows: Rows) -> Loaded:
        """Return the model of an arm that trains nothing.

        Raises:
            TrainingError: the arm whose model it changes, or whose LoRAs it weighs, has failed.
        """
        if arm.kind == "untrained":
            return untrained(arm_recipe(self.recipe, arm, seed=seed), rows)
        if arm.loras is not None:
            return arrow(self.recipe, runs_of(self._place(arm.loras, seed), self.recipe), seed=seed)
        trained = self._place(main_arm(self.recipe), seed)
        if not (trained / RESULTS).exists():
            raise TrainingError(f"needs the arm {main_arm(self.recipe)} with this seed, which failed; see its message")
        return ablated(arm.name, trained, seed=seed)


def compare(
    recipe: Recipe,
    *,
    output_dir: str | Path,
    arms: Sequence[str] | None = None,
    own: Sequence[Arm] = (),
    seeds: Sequence[int] | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    told: Callable[[str], None] = lambda message: None,
) -> Comparison:
    """Run a recipe's method beside baselines, ablations and variants, and write compare.json and compare.md.

    Args:
        recipe: the recipe.
        output_dir: the comparison's folder.
        arms: arms by name; None: all that say anything about this recipe.
        own: further arms, from `own_arms`.
        seeds: seeds; None: the recipe's own.
        resume: go on with the comparison in `output_dir`; finished arms are kept, asked for again or not, and further arms and seeds
            may be asked for.
        observer: is told how training goes.
        told: is told of each arm, in a sentence.

    Raises:
        ConfigError: an arm is unknown, does not fit or has settings that do not, or a seed is given twice.
        CheckpointError: another process works in the folder, or it holds something else.
        TrainingError: all arms failed, or the disk is full.
    """
    chosen = fitting(recipe, choose(recipe, arms, own), named=arms or (), told=told)
    numbers = list(seeds) if seeds is not None else [recipe.seed]
    if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0:
        raise ConfigError(f"seeds are {numbers}; give each seed once, from 0")
    folder = Path(output_dir)
    work = Comparing(recipe=recipe, folder=folder, arms=chosen, seeds=numbers, observer=observer, told=told)
    work.check()
    with RunDirectory(
        folder,
        recipe,
        resume=resume,
        results=NAME,
        begun=lambda folder: (folder / "arms").exists(),
        others=(RESULTS, "checkpoints"),
    ):
        check_own(recipe, own, folder)
        work.run()
        shown = work.keep_finished([*ARMS, *OUTSIDE, *own])
        if not any(work.done.values()):
            if not work.failed:
                raise ConfigError("arms is empty; name at least one")
            raise TrainingError(f"all arms failed; the first: {next(iter(work.failures().values()))}")
        rows = work.rows_of(numbers[0])
        told("resampling test rows for the intervals")
        comparison = collect(recipe, shown, work.done, work.failures(), rows=rows, folder=folder, environment=environment())
        guarded(folder / PAGE, lambda: write_text(markdown(comparison), folder / PAGE))
        guarded(folder / NAME, lambda: write_comparison(comparison, folder))
    return comparison
