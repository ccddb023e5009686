"""`alter list`: what there is to choose from."""

from __future__ import annotations

import typer

from alter.cli.terminal import console, echo_json, table

SITES = {"all": "every FFN", "last": "the last FFN"}


def list_(
    kind: str = typer.Argument(
        None, help="adapters, gates, penalties, metrics, families, baselines, methods or presets; by default all."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of tables."),
) -> None:
    """List adapter kinds, gate kinds, penalties, metrics, model families, baselines, merge methods and presets."""
    from alter.errors import ConfigError, did_you_mean

    found = catalogue()
    if kind is not None and kind not in found:
        raise ConfigError(f"nothing of kind '{kind}' to list; {did_you_mean(kind, found)}")
    chosen = {kind: found[kind]} if kind else found
    if as_json:
        echo_json(chosen)
        return
    for name, entries in chosen.items():
        console().print(table(name, ["name", "what it is"], [[entry, what] for entry, what in entries.items()], left=2))
        console().print()


def catalogue() -> dict[str, dict[str, str]]:
    """Return kind -> name -> one line on it, for everything that can be chosen; loads no torch."""
    from alter.backbones import FAMILIES
    from alter.baselines import BASELINES
    from alter.merging import MERGE_METHODS
    from alter.metrics import METRICS
    from alter.mta_settings import ADAPTERS, GATES
    from alter.presets import PRESETS
    from alter.recipe import PENALTIES

    registries = {
        "adapters": ADAPTERS,
        "gates": GATES,
        "penalties": PENALTIES,
        "metrics": METRICS,
        "families": FAMILIES,
        "baselines": BASELINES,
        "methods": MERGE_METHODS,
    }
    found = {name: registry.summaries() for name, registry in registries.items()}
    found["presets"] = {
        name: f"{p['mta']['adapter']['kind']} on {SITES[p['mta']['sites']]}, selector {p['mta']['selector']['kind']}, gate "
        f"{p['mta']['gate']['kind']}, stage 1 trains {', '.join(p['stages']['stage1']['trains'])}"
        for name, p in PRESETS.items()
    }
    return found
