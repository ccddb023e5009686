"""Write what the documentation takes from the code, and check the rest (checks.py); exit code 1 if anything is wrong.

Writes docs/reference/ and the floors in docs/design.md:

    python docs/build.py
    python docs/build.py --check    writes nothing: a page that is out of date is a problem too
"""

from __future__ import annotations

import argparse
import enum
import json
import re
import sys
import tomllib
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic
import typer.main
from checks import documents, problems_in, tree_problems
from pydantic.fields import FieldInfo

from alter.backbones import FAMILIES
from alter.baselines import BASELINES
from alter.model_config import AlterConfig, BaseInfo
from alter.cli import app
from alter.comparison import (
    ArmResult,
    ArmRun,
    Budget,
    ComparedTask,
    Comparison,
    Difference,
    Spread,
    StageScores,
    Summary,
)
from alter.merging import MERGE_METHODS
from alter.metrics import METRICS
from alter.mta_settings import ADAPTERS, GATES, AdapterSettings, GateSettings, MTASettings, PartSettings
from alter.presets import PRESETS
from alter.recipe import PENALTIES, HeadSettings, LearningRates, MixtureSettings, Recipe, StageSettings, TrainSettings
from alter.registry import Registry
from alter.results import Results, SplitScores, StageResult, TaskScore
from alter.tasks.spec import GenerationSettings, Source, TaskSpec
from alter.training.state import Progress

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
DESIGN = ROOT / "docs" / "design.md"
MADE = "<!-- Written by docs/build.py from the code: edit the docstrings there, then run `make docs`. -->"
SIMPLE = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}

# settings class -> where it stands in a recipe, and the heading of its table
RECIPE_PARTS: dict[type[pydantic.BaseModel], tuple[str, ...]] = {
    Recipe: ("",),
    TaskSpec: ("tasks[]",),
    Source: ("tasks[].source",),
    GenerationSettings: ("tasks[].generation",),
    MTASettings: ("mta",),
    AdapterSettings: ("mta.adapter",),
    GateSettings: ("mta.selector", "mta.gate"),
    HeadSettings: ("heads",),
    MixtureSettings: ("mixture",),
    TrainSettings: ("train",),
    StageSettings: ("stages.stage1", "stages.stage2"),
    LearningRates: ("stages.stage1.learning_rates", "stages.stage2.learning_rates"),
}


def first_line(kind: type) -> str:
    """Return the first line of a docstring."""
    return (kind.__doc__ or "").strip().split("\n")[0]


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table; `|` in a cell is escaped."""
    cells = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {row} |" for row in cells), ""]


def type_text(annotation: Any) -> str:
    """Return a type in a reader's words."""
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(argument) for argument in arguments))
    if origin in (list, tuple):
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return f"mapping to {type_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        page = "recipe.md" if annotation in RECIPE_PARTS else "run_directory.md"
        return f"[{annotation.__name__}]({page}#{annotation.__name__.lower()})"
    return getattr(annotation, "__name__", str(annotation))


def bounds_text(field: FieldInfo) -> str:
    """Return `, at least 1` and the like."""
    return "".join(
        f", {words} {getattr(bound, name):g}"
        for bound in field.metadata
        for name, words in BOUNDS.items()
        if getattr(bound, name, None) is not None
    )


def default_text(field: FieldInfo, name: str, paths: tuple[str, ...]) -> str:
    """Return a setting's default; `preset` where every preset gives the setting."""
    if not field.is_required():
        value = field.get_default()
        return "" if isinstance(value, pydantic.BaseModel) else f"`{plain(value)}`"
    if (name, paths) == ("name", RECIPE_PARTS[Recipe]):
        return "the file's name"
    return "preset" if any(in_presets(f"{path}.{name}".lstrip(".")) for path in paths) else "required"


def in_presets(key: str) -> bool:
    """Return whether every preset gives the setting `key`."""
    return all(any(known == key or known.startswith(f"{key}.") for known in flat(preset)) for preset in PRESETS.values())


def plain(value: Any) -> str:
    """Return a value as YAML shows it."""
    if value is None or value == "":
        return "null" if value is None else '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value)
    return str(value.value) if isinstance(value, enum.Enum) else f"{value:g}" if isinstance(value, float) else str(value)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as `key.path` -> value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        found.update(flat(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return found


def settings_table(kind: type[pydantic.BaseModel], paths: tuple[str, ...] = (), *, level: int = 2) -> list[str]:
    """Return heading, first line and table of one settings class."""
    where = " and ".join(f"`{path}`" for path in paths if path)
    rows = [
        (f"`{name}`", type_text(field.annotation) + bounds_text(field), default_text(field, name, paths), field.description or "")
        for name, field in kind.model_fields.items()
    ]
    at = [f"Under {where}.", ""] if where else []
    return [f"{'#' * level} {kind.__name__}", "", first_line(kind), "", *at, *table(("key", "value", "default", "what"), rows)]


def recipe_page() -> list[str]:
    """Return the page of recipe settings."""
    lines = [
        "# Recipe settings",
        "",
        "Every key of a recipe. `preset` as a default means that the chosen preset gives it (last table). An unknown key is an",
        "error. `alter train RECIPE --print-config` prints a recipe with everything filled in; `key.path=value` after the recipe",
        "overrides one setting (tasks by name: `tasks.intent.cap=100`).",
        "",
    ]
    for kind, paths in RECIPE_PARTS.items():
        lines += settings_table(kind, paths)
    keys = dict.fromkeys(key for preset in PRESETS.values() for key in flat(preset))
    cells = {name: flat(preset) for name, preset in PRESETS.items()}
    rows = [(f"`{key}`", *(f"`{plain(cells[name][key])}`" if key in cells[name] else "" for name in PRESETS)) for key in keys]
    return [*lines, "## Presets", "", "What a recipe is laid over.", "", *table(("key", *PRESETS), rows)]


def cli_page() -> list[str]:
    """Return the page of verbs."""
    lines = [
        "# Command line",
        "",
        "Results go to standard output, progress and warnings to standard error. Exit codes: 0 done, 2 a mistake that you can",
        "mend (see [errors](../errors.md)), 130 stopped with Ctrl-C. `python -m alter` is the same command.",
        "",
    ]
    group: Any = typer.main.get_command(app)
    for verb, command in group.commands.items():
        rows = [_option_row(option) for option in command.params]
        lines += [f"## alter {verb}", "", str(command.help), "", *table(("argument or option", "default", "what"), rows)]
    return lines


def _option_row(option: Any) -> tuple[str, ...]:
    is_argument = option.param_type_name == "argument"
    names = (option.metavar or option.name.upper(),) if is_argument else option.opts
    value = "" if is_argument or option.is_flag else f" {option.metavar or 'VALUE'}"
    required = is_argument and option.required
    default = "required" if required else "" if option.default in (None, False) else f"`{plain(option.default)}`"
    return ", ".join(f"`{name}{value}`" for name in names), default, option.help or ""


def shipped(registry: Registry) -> list[str]:
    """Return the plug-ins that come with alter; other installed packages may declare more."""
    return [name for name, module in registry.modules().items() if module.startswith("alter.")]


def plugins_page() -> list[str]:
    """Return the page of plug-ins."""
    kinds: dict[str, tuple[Registry, str]] = {
        "Adapter kinds": (ADAPTERS, "add-an-adapter-kind.md"),
        "Gate kinds": (GATES, "add-a-gate-kind.md"),
        "Penalties": (PENALTIES, "add-a-penalty.md"),
        "Metrics": (METRICS, "add-a-metric.md"),
        "Model families": (FAMILIES, "add-a-family.md"),
        "Baselines": (BASELINES, ""),
        "Merge methods": (MERGE_METHODS, "add-a-merge-method.md"),
    }
    lines = [
        "# Plug-ins",
        "",
        "A file in the folder is a plug-in; its file name is its name. Other packages add theirs through an entry point in the",
        "group of the folder's dotted name. `alter list` prints this page's names.",
        "",
    ]
    for title, (registry, page) in kinds.items():
        folder = f"src/{registry.package.replace('.', '/')}/"
        how = f" How to: [{page}](../how-to/{page})." if page else ""
        lines += [f"## {title}", "", f"Folder `{folder}`, each file defines `{registry.attribute}`, entry-point group "]
        lines[-1] += f"`{registry.package}`.{how}"
        lines += ["", *table(("name", "what"), [(f"`{name}`", registry.summaries()[name]) for name in shipped(registry)])]
    for name in shipped(MERGE_METHODS):
        settings = MERGE_METHODS.module(name).SETTINGS
        if settings.model_fields:
            lines += settings_table(settings, level=3)
    covered = [(f"`{name}`", ", ".join(f"`{kind}`" for kind in FAMILIES.get(name).model_types)) for name in shipped(FAMILIES)]
    return [
        *lines,
        "## Model types",
        "",
        "`model_type` in a model's config.json -> family.",
        "",
        *table(("family", "types"), covered),
    ]


LAYOUT = """
# Run directory

Readable without our code: JSON, YAML, safetensors. Files are written whole (beside their place, then renamed), but for
metrics.jsonl, which grows line by line. results.json, alter_config.json and state.json carry the version of their layout.

```text
RUN/
  recipe.yaml                    the resolved recipe: every setting, paths absolute
  results.json                   scores per task, split and stage; there only when the run is over
  metrics.jsonl                  one line per log step and per validation
  predictions/<split>/<task>.jsonl   a line a row of validation and test rows: what the released stage answered
  gates.json                     gate weights by task, site and adapter, of each stage
  tensorboard/                   only with train.report_to: [tensorboard]
  .lock                          held while a process writes here
  checkpoints/
    stage1-000120/               a resumable state: stage, step
      state.json                 where the run is, scores so far, journal length
      model.safetensors          parameters that training may have changed
      optimizer.safetensors      AdamW's moments, random-number states
      best.safetensors           the stage's best parameters so far
    best-stage1.safetensors      the best parameters of a finished stage
    best-stage2.safetensors
  model/                         what ships; it needs nothing else of the run
    alter_config.json            the base, the MTA, the tasks with labels, templates and metrics
    adapters/<task>/             adapter_config.json, adapter_model.safetensors; PEFT's own layout for kind lora
    adapters/peft/               a method of the library peft in its own layout, where one was trained; X-LoRA's LoRAs: experts/<name>/
    shared/<j>/                  the same for each shared adapter
    gates.safetensors            selector and gate of every site
    heads.safetensors            one head per task; not of models that write
    backbone.safetensors         only where training changed the backbone
    README.md                    model card
```

With fewer adapters than tasks (`mta.num_adapters`) the folders are `adapters/adapter-<i>/`. `alter predict` and `alter evaluate`
take RUN or RUN/model.

## metrics.jsonl

Two kinds of line, told by `event`:

| event | keys |
|---|---|
| `step` | stage, step, epoch, loss, losses (by task), learning_rates (by group), grad_norm, rows_per_second, penalties (by name, where the stage has any) |
| `validation` | stage, step, average, tasks (task -> score, metric), best (whether this is the stage's best so far) |

Losses and penalties are means since the last `step` line (the loss without penalties, penalties without their factors);
rows_per_second is one process's.

## Predictions

`alter predict --output FILE` and `--json`: one object a line with input, task and what there is of: label, value (a
regression's number), text (what a model wrote), score (probability; of what was written exp of its mean log-likelihood per token),
scores (by label, where a head answered or labels were ranked); truncated where the input was cut; gate_weights where asked for.

`predictions/<split>/<task>.jsonl` of a run, and `alter evaluate --predictions-dir DIR`: `<task>.jsonl` with input, prediction (label, number or text; of an invalid answer what was
written), target, references (all texts that count as right, where there are several), score and gate_weights; with
`--predictions-format ids` `<task>.txt`, one label id a line, -1 for what is no label (numbers as they are; generations have no ids).

## gates.json

`schema` (1), `tasks`, `adapters` (task adapters by their task's name, then shared ones), `sites` (positions among the FFNs), and
`stages`: stage -> weights[task][site][adapter], averaged over the first 64 validation rows of each task (and over tokens, where they
differ by token). `sites` is empty with `mta.sites: none`.
"""

COMPARISON_LAYOUT = """
## Comparison folder

What `alter compare` writes:

```text
COMPARE/
  compare.json                   what every arm reached and cost; below
  compare.md                     its tables
  recipe.yaml                    the resolved recipe
  arms/<arm>/seed<k>/            a run directory; of arms of one task at a time <task>/ below it; of yardsticks and of changes of a
                                 trained model results.json and predictions/ only
```

compare.json's first key is `schema`, which is `schema_version` here. A number that is none (a deviation of one seed) is null.
"""


def run_directory_page() -> list[str]:
    """Return the page of the run directory."""
    lines = [*LAYOUT.strip().split("\n"), ""]
    parts = {"results.json": (Results, SplitScores, TaskScore, StageResult), "alter_config.json": (AlterConfig, BaseInfo, PartSettings)}
    for file, kinds in {**parts, "state.json": (Progress,)}.items():
        lines += [f"## {file}", ""]
        if file == "results.json":
            lines += ["The file's first key is `schema`, which is `schema_version` here; a score that is no number is null.", ""]
        for kind in kinds:
            lines += settings_table(kind, level=3)
    lines += [*COMPARISON_LAYOUT.strip().split("\n"), ""]
    for kind in (Comparison, ComparedTask, ArmResult, ArmRun, StageScores, Budget, Summary, Spread, Difference):
        lines += settings_table(kind, level=3)
    return lines


PAGES: dict[str, Callable[[], list[str]]] = {
    "recipe.md": recipe_page,
    "cli.md": cli_page,
    "plugins.md": plugins_page,
    "run_directory.md": run_directory_page,
}


def render(page: str) -> str:
    """Return a reference page's text."""
    return "\n".join([MADE, "", *PAGES[page]()]).rstrip() + "\n"


def stale_pages() -> list[str]:
    """Return what is written from the code and no longer says what the code says."""
    found = {page: REFERENCE / page for page in PAGES}
    stale = [page for page, path in found.items() if not path.exists() or path.read_text(encoding="utf-8") != render(page)]
    design = DESIGN.read_text(encoding="utf-8")
    drawn = [] if with_floors(design) == design else ["docs/design.md: the floors are out of date; run: make docs"]
    return [f"docs/reference/{page}: out of date; run: make docs" for page in stale] + drawn


def with_floors(text: str) -> str:
    """Return the design page with the floors drawn as pyproject.toml has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = "\n".join(layer.replace("alter.", "") for layer in layers)
    start, end = "<!-- floors:start -->", "<!-- floors:end -->"
    return re.sub(f"{start}.*{end}", f"{start}\n```text\n{drawn}\n```\n{end}", text, flags=re.DOTALL)


def main() -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        problems = stale_pages()
    else:
        REFERENCE.mkdir(parents=True, exist_ok=True)
        problems = []
        for page in PAGES:
            (REFERENCE / page).write_text(render(page), encoding="utf-8")
        DESIGN.write_text(with_floors(DESIGN.read_text(encoding="utf-8")), encoding="utf-8")
    problems += tree_problems() + [problem for path in documents() for problem in problems_in(path)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(PAGES)} reference pages, {len(documents())} documents, {len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
