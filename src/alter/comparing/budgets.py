"""What arms cost: parameters, steps, time, memory, and bytes to store all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alter.comparison import FLOAT, ArmRun, Budget, base_size
from alter.recipe import Recipe, load_recipe
from alter.results import Results
from alter.training.rundir import RECIPE


def run_budget(folders: Sequence[Path], found: Sequence[Results]) -> Budget:
    """Add up what the runs of an arm cost."""
    recipes = [load_recipe(path / RECIPE) for path in folders]
    stages = [stage for results in found for stage in results.stages.values()]
    seconds = sum(stage.seconds for stage in stages)
    second = [results.stages["stage2"].seconds for results in found if "stage2" in results.stages]
    peaks = [stage.peak_memory_bytes for stage in stages if stage.peak_memory_bytes is not None]
    trained = [
        sum(results.parameters[group] for group in _trained_groups(recipe))
        for recipe, results in zip(recipes, found, strict=True)
    ]
    on_disk = sum(file.stat().st_size for path in folders for file in (path / "model").rglob("*.safetensors"))
    pairs = zip(folders, found, strict=True)
    frozen = [base_size(results) for path, results in pairs if not (path / "model" / "backbone.safetensors").exists()]
    base = max(frozen, default=0)  # all of them stand on the one base
    return Budget(
        trainable_parameters=sum(trained),
        total_parameters=sum(results.parameters["total"] for results in found) - sum(frozen) + base,
        steps=sum(stage.steps for stage in stages),
        seconds=round(seconds, 2),
        peak_memory_bytes=max(peaks) if peaks else None,
        stored_bytes=on_disk + FLOAT * base,
        stage2_share=round(sum(second) / seconds, 4) if second and seconds else None,
    )


def told_budget(results: Results) -> Budget:
    """Return what another program says that its run cost; arms that were not trained have no stages."""
    stages = list(results.stages.values())
    return (
        Budget(
            trainable_parameters=sum(stage.trainable_parameters for stage in stages),
            total_parameters=results.parameters.get("total"),
            steps=sum(stage.steps for stage in stages),
            seconds=round(sum(stage.seconds for stage in stages), 2),
        )
        if stages
        else Budget()
    )


def on_loras(mine: Sequence[ArmRun], loras: Sequence[ArmRun]) -> list[ArmRun]:
    """Add what the LoRAs cost to the arms that weigh them; an arm that trains nothing itself costs what they did."""
    costs = {run.seed: run.budget for run in loras}
    found = []
    for run in mine:
        theirs, own = costs.get(run.seed), run.budget
        if theirs is not None and own.steps is None:
            run = run.model_copy(update={"budget": theirs})
        elif theirs is not None:
            both = {
                name: sum(getattr(one, name) or 0 for one in (own, theirs))
                for name in ("trainable_parameters", "steps", "seconds")
            }
            peaks = [one.peak_memory_bytes for one in (own, theirs) if one.peak_memory_bytes is not None]
            run = run.model_copy(
                update={"budget": own.model_copy(update={**both, "peak_memory_bytes": max(peaks, default=None)})}
            )
        found.append(run)
    return found


def relate_times(runs: dict[str, list[ArmRun]]) -> None:
    """Give every run its time over that of the arm `multi-full` with the same seed."""
    reference = {run.seed: run.budget.seconds for run in runs.get("multi-full", [])}
    for arm, found in runs.items():
        runs[arm] = [
            run
            if run.budget.seconds is None or not reference.get(run.seed)
            else run.model_copy(
                update={
                    "budget": run.budget.model_copy(
                        update={"relative_time": round(run.budget.seconds / float(reference[run.seed] or 1), 3)}
                    )
                }
            )
            for run in found
        ]


def _trained_groups(recipe: Recipe) -> set[str]:
    return {group for stage in recipe.stages.values() if stage.num_train_epochs > 0 for group in stage.trains}
