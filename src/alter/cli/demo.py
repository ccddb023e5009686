"""`alter demo`: the whole way in minutes, on tickets that ship with the package."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, notes, table, warn, warn_of_cut_texts

if TYPE_CHECKING:
    from alter.results import Results
    from alter.training.run import Run

HEADINGS = {"majority": "majority class", "tfidf": "TF-IDF", "stage1": "stage 1", "stage2": "stage 2"}
SHADES = " .:-=+*#%@"
NUM_WRITTEN = 5
HEADED = {"subject": "subject lines", "reply": "replies"}


def demo(
    output_dir: Path = typer.Option(Path("runs/demo"), "--output-dir", "-o", help="The run directory."),
    overrides: list[str] = typer.Option(
        None, "--set", metavar="KEY.PATH=VALUE", help="A setting over the example's; may be repeated."
    ),
    writing_overrides: list[str] = typer.Option(
        None, "--set-writing", metavar="KEY.PATH=VALUE", help="The same for its second part, the texts."
    ),
    again: bool = typer.Option(False, "--again", help="Delete an earlier example in --output-dir and start over."),
    as_json: bool = typer.Option(False, "--json", help="Print results.json instead of tables."),
) -> None:
    """Train one 22M-parameter encoder on six help-desk tasks in two stages, then a small model that writes subject lines and replies."""
    from alter.cli.progress import TerminalProgress
    from alter.demo.run import run_demo, writing_recipe

    writing_recipe(list(writing_overrides or []))  # a mistake in its settings is told before the first part trains

    notes().print("help-desk tickets: 400 to learn from, 100 to choose by, 120 unseen to score on; six tasks over each")
    started = time.monotonic()
    run = run_demo(
        output_dir,
        overrides=list(overrides or []),
        again=again,
        observer=TerminalProgress(notes()),
        told=lambda text: notes().print(text),
    )
    for split, scores in run.results.splits.items():
        warn_of_cut_texts(split, scores)
    if not as_json:  # while the second part trains, the first one's results can be read
        _show(run.folder, run.results, seconds=time.monotonic() - started)
    writing = _write(output_dir, list(writing_overrides or []), again=again)
    if as_json:
        import json

        parts = {"": run, **({} if writing is None else {"writing": writing})}
        found = {name: json.loads((part.folder / "results.json").read_text(encoding="utf-8")) for name, part in parts.items()}
        echo_json({**found.pop(""), **found})
        return
    if writing is not None:
        _show_writing(writing.folder, writing.results)
    _show_next(run.folder)


def _write(output_dir: Path, overrides: list[str], *, again: bool) -> Run | None:
    """Run the second part; None, with a warning, where its base model is not installed."""
    from alter.backbones._package import resolve_base
    from alter.cli.progress import TerminalProgress
    from alter.demo.run import run_writing, writing_recipe
    from alter.errors import ModelError

    try:
        resolve_base(writing_recipe(overrides).model_name_or_path)
    except ModelError as error:
        warn(f"the second part, a model that writes subject lines and replies, is left out: {error}")
        return None
    notes().print("the same tickets, a subject line and a short reply for each: a small model that writes")
    return run_writing(
        output_dir.with_name(f"{output_dir.name}-writing"),
        overrides=overrides,
        again=again,
        observer=TerminalProgress(notes()),
        told=lambda text: notes().print(text),
    )


def _show(folder: Path, results: Results, *, seconds: float) -> None:
    from alter.demo.run import stage_scores

    columns = stage_scores(results)
    tasks = list(results.splits["test"].tasks)
    rows = [[task, *(f"{scores[task]:.1f}" for scores in columns.values())] for task in tasks]
    rows.append(["average", *(f"{sum(scores.values()) / len(scores):.1f}" for scores in columns.values())])
    title = "test macro-F1 in percent, 120 unseen tickets"
    console().print(table(title, ["task", *(HEADINGS[name] for name in columns)], rows))
    trained = sum(stage.seconds for stage in results.stages.values())
    counts = results.parameters
    added = counts["total"] - counts["backbone"]
    console().print(
        f"released: {results.released}, the better on validation rows; {added:,} added parameters on a base of "
        f"{counts['backbone']:,}; training took {trained:.0f} s of {seconds:.0f} s\n",
        soft_wrap=True,
    )
    _show_gates(folder)


def _show_next(folder: Path) -> None:
    text = "since this morning the calendar shows every booking twice and clients are angry, i am about to look elsewhere"
    run, predictions = shlex.quote(str(folder)), shlex.quote(f"{folder}/predictions")
    lines = [
        f"files: {folder}/model (what ships), {folder}/results.json, {folder}/recipe.yaml (copy it for your own tasks)\n",
        f"next:  alter predict {run} --text '{text}'",
        f"       alter evaluate {run} --split test --predictions-dir {predictions}",
    ]
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def _show_writing(folder: Path, results: Results) -> None:
    """Show scores, and what the model writes for tickets it has not seen beside what a person wrote."""
    from alter.demo.run import TICKETS, stage_scores
    from alter.predict import load
    from alter.tasks.source import read_rows

    columns = stage_scores(results)
    headings = ["task", *({"tfidf": "nearest / first words"}.get(name, HEADINGS[name]) for name in columns)]
    rows = [[task, *(f"{scores[task]:.1f}" for scores in columns.values())] for task in results.splits["test"].tasks]
    console().print(table("test ROUGE-L in percent, 120 unseen tickets", headings, rows))
    unseen = [row.values for row in list(read_rows(TICKETS / "test.jsonl"))[:NUM_WRITTEN]]
    model = load(folder)
    for task in results.splits["test"].tasks:
        written = model.predict(task, [str(row["text"]) for row in unseen])
        shown = [
            [_short(str(row["text"])), str(row[task]), prediction.text or ""]
            for row, prediction in zip(unseen, written, strict=True)
        ]
        console().print(table(HEADED.get(task, task), ["ticket", "a person's", "the model's"], shown, left=3))
    trained = sum(stage.seconds for stage in results.stages.values())
    console().print(
        f"released: {results.released}; training took {trained:.0f} s; files: {folder}\n",
        markup=False,
        soft_wrap=True,
    )


def _short(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= 60 else f"{folded[:57]}..."


def _show_gates(folder: Path) -> None:
    """Draw the gate weights of the released model: a row per task, a numbered column per adapter."""
    from alter.checkpoint import load_model
    from alter.gatemap import gate_map
    from alter.predict import adapter_names
    from alter.recipe import load_recipe
    from alter.training.prepare import encode_split, read_rows

    loaded = load_model(folder)
    recipe = load_recipe(folder / "recipe.yaml")
    rows = encode_split(read_rows(recipe), "validation", codec=loaded.codec)
    weights_TLE = gate_map(loaded.model, rows, codec=loaded.codec)
    names = adapter_names(loaded.model)
    weights_TE = weights_TLE.mean(1).tolist()
    cells = [[task, *map(_cell, weights)] for task, weights in zip(loaded.model.task_names, weights_TE, strict=True)]
    title = "which adapters a task uses (mean gate weight, from ' ' = 0 to '@' = 1)"
    # Six tasks and two shared adapters fit into 80 columns by their numbers, not by their names.
    console().print(table(title, ["task", *(str(number) for number in range(1, len(names) + 1))], cells))
    legend = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1))
    console().print(f"adapters: {legend}\n", markup=False)


def _cell(weight: float) -> str:
    top = len(SHADES) - 1
    return f"{SHADES[min(top, max(0, round(weight * top)))]}{weight:.2f}"
