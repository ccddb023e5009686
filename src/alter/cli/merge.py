"""`alter merge MODEL... --method ties --set density=0.3 --base BASE --output-dir OUT`."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alter.cli.terminal import console, echo_json, table

if TYPE_CHECKING:
    from alter.combining.report import MergeReport


class Adapters(StrEnum):
    """What becomes of the adapters of models of alter."""

    keep = "keep"
    merge = "merge"


def merge(
    models: list[str] = typer.Argument(..., metavar="MODEL...", help="Plain model folders, or models of alter; of one base."),
    method: str = typer.Option(None, "--method", "-m", help="A merge method; alter list methods shows them."),
    settings: list[str] = typer.Option(None, "--set", metavar="KEY=VALUE", help="A setting of the method; may be repeated."),
    base: str = typer.Option(None, "--base", help="What the models were trained from: a folder or package:NAME."),
    output_dir: Path = typer.Option(None, "--output-dir", "-o", help="Where the merged model goes; must not be there yet."),
    adapters: Adapters = typer.Option(
        Adapters.keep, "--adapters", help="Models of alter: keep each task's adapters, or merge LoRA adapters into one for all."
    ),
    rank: int = typer.Option(
        None, "--rank", min=1, help="Rank of the one adapter (--adapters merge); by default the first model's."
    ),
    statistics: list[Path] = typer.Option(
        None, "--statistics", help="A .safetensors file of what fisher or regmean need, for each model in order; repeated."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """Merge models that were trained from one base into one model."""
    from alter.errors import ConfigError

    if output_dir is None:
        raise ConfigError("no place for the merged model is given; add one, e.g. --output-dir runs/merged")
    given = _settings(settings or [])

    from alter.combining.run import merge as merge_models

    report = merge_models(
        models,
        output_dir=output_dir,
        method=method,
        settings=given,
        base=base,
        adapters=adapters.value,
        rank=rank,
        statistics=statistics or [],
    )
    if as_json:
        echo_json(report.as_dict())
        return
    _show(report)


def _settings(given: list[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as a mapping; values are YAML."""
    from alter.config import apply_overrides
    from alter.errors import ConfigError

    for text in given:
        if "=" not in text or text.startswith("="):
            raise ConfigError(f"--set {text}: is no setting; write KEY=VALUE, e.g. --set density=0.3")
    return apply_overrides({}, given)


def _show(report: MergeReport) -> None:
    if report.lengths:
        what = "length of its task vector" if report.kind == "adapter" else "length of its task vector, of the base's"
        rows = [[name, f"{value:.4g}"] for name, value in report.lengths.items()]
        console().print(table("", ["task" if report.kind == "adapter" else "model", what], rows))
    lines = []
    if report.method is not None:
        lines.append(
            f"method: {report.method} ({', '.join(f'{key} {value}' for key, value in report.settings.items()) or 'no settings'})"
        )
    if report.relative_error is not None:
        lines.append(
            f"relative error of the cut to the adapter's rank: {report.relative_error:.4g} (length of what does not fit into "
            f"--rank over the length of the whole merged change: 0 loses nothing, a larger --rank loses less)"
        )
    if report.tasks:
        lines.append(f"tasks: {', '.join(report.tasks)}")
    folder = shlex.quote(str(report.folder))
    if report.tasks:
        lines += [
            f"model: {report.folder} (a model directory: alter predict, evaluate and merge read it)",
            f"next:  alter predict {folder} --task {report.tasks[0]} --text '...'",
            f"       alter evaluate {folder} --recipe RECIPE --split validation",
        ]
    else:
        lines += [
            f"model: {report.folder} (a plain folder, as transformers writes it: a base model for alter train)",
            f"next:  alter train RECIPE model_name_or_path={folder} --output-dir RUN",
        ]
    console().print("\n".join(lines), markup=False, soft_wrap=True)
