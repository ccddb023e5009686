"""Markdown tables from finished runs: one per domain, test scores per task, mean and standard deviation over seeds.

    python benchmarks/tables.py runs/domains

Reads only results files: <domain>-<preset>-seed<N>/results.json and <domain>-yardsticks-seed<N>.json; <preset>-random is the control
whose base model has random weights (benchmarks/random_base.py).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import yaml

from alter.results import Results, read_results

RUN = re.compile(r"^(?P<domain>[a-z]+)-(?P<preset>(alter|alter-lite)(-random)?)-seed(?P<seed>\d+)$")
HERE = Path(__file__).parent


def spread(values: list[float]) -> str:
    """Return mean and standard deviation; one value alone has none."""
    if not values:
        return "-"
    return f"{values[0]:.1f}" if len(values) == 1 else f"{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    runs: dict[str, dict[str, list[Results]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.iterdir()):
        match = RUN.match(path.name)
        if match and (path / "results.json").exists():
            runs[match["domain"]][match["preset"]].append(read_results(path / "results.json"))
    references = yaml.safe_load((HERE / "references.yaml").read_text(encoding="utf-8"))
    for domain, presets in runs.items():
        print(f"### {domain}\n")
        print(domain_table(presets, yardsticks(folder, domain), references.get(domain, {})))
        print(stage_table(presets))


def yardsticks(folder: Path, domain: str) -> dict[str, dict[str, list[float]]]:
    """Return yardstick -> task -> test scores over seeds."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob(f"{domain}-yardsticks-seed*.json")):
        for name, splits in json.loads(path.read_text(encoding="utf-8")).items():
            for task, score in splits["test"]["tasks"].items():
                found[name][task].append(score["score"])
            found[name]["average"].append(splits["test"]["average"])
    return found


def domain_table(presets: dict[str, list[Results]], marks: dict[str, dict[str, list[float]]], references: dict[str, str]) -> str:
    """Return the table of test scores."""
    columns: dict[str, dict[str, list[float]]] = {name: marks[name] for name in ("majority", "tfidf") if name in marks}
    first = next(iter(presets.values()))[0]
    for preset, results in sorted(presets.items()):
        scores: dict[str, list[float]] = defaultdict(list)
        for result in results:
            for task, score in result.splits["test"].tasks.items():
                scores[task].append(score.score)
            scores["average"].append(result.splits["test"].average)
        columns[f"{preset} ({len(results)} seed{'s' if len(results) > 1 else ''})"] = scores
    lines = [
        "| task | metric | test rows | " + " | ".join(columns) + " | published (full data) |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for task, score in first.splits["test"].tasks.items():
        cells = [spread(column[task]) for column in columns.values()]
        lines.append(f"| {task} | {score.metric} | {score.num_examples} | {' | '.join(cells)} | {references.get(task, '-')} |")
    cells = [spread(column["average"]) for column in columns.values()]
    lines.append(f"| **average** | | | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def stage_table(presets: dict[str, list[Results]]) -> str:
    """Return what each stage reached on validation rows and what it cost, in steps: times of a shared machine say little."""
    lines = [
        "| preset | stage 1, validation | stage 2, validation | released | trainable, stage 1 / 2 | stage 2's share of steps |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for preset, results in sorted(presets.items()):
        stages = [[result.stages[name] for result in results] for name in ("stage1", "stage2")]
        averages = [spread([stage.average for stage in found]) for found in stages]
        steps = [sum(stage.steps for stage in found) for found in stages]
        released = ", ".join(result.released for result in results)
        trainable = f"{stages[0][0].trainable_parameters:,} / {stages[1][0].trainable_parameters:,}"
        share = 100 * steps[1] / sum(steps)
        lines.append(f"| {preset} | {averages[0]} | {averages[1]} | {released} | {trainable} | {share:.0f} % |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
