"""Which stage an arm released: scores are those of one stage, and arms that kept the same stage 1 have the same ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from alter.comparison import Difference, mean
from alter.reporting.arms import Arm, Member, Part, spread
from alter.reporting.blocks import Cell, Table
from alter.reporting.words import NONE, listed, number, plain, spread_cell, stage_name

BOTH = {"stage1", "stage2"}
PRECISION = (
    "Validation averages of stages were computed while training, in the training's number format (mixed_precision), those of what was "
    "released in float32: the two may differ, most of all for models that write."
)


def has_both(arm: Arm) -> bool:
    """Whether an arm went through two stages, of which one was released."""
    return bool(arm.members) and all(member.stages.keys() >= BOTH and member.released for member in arm.members)


def kept_first(arm: Arm) -> dict[int, float]:
    """Return the seeds that released a stage 1 which other arms may share -> its validation average, which tells two of them apart.

    What is trained in one stage has a stage 1 by name alone, unless it is the arm `stage1`.
    """
    firsts = {
        member.seed: member.stages["stage1"].validation
        for member in arm.members
        if member.released == "stage1" and (arm.name == "stage1" or member.stages.keys() >= BOTH) and "stage1" in member.stages
    }
    return {seed: validation for seed, validation in firsts.items() if math.isfinite(validation)}


def is_rounded(member: Member) -> bool:
    """Whether an arm's validation average while training was of another number format than that of its scores, or reads differently."""
    if member.run is not None and member.run.results.environment.get("precision", "no") != "no":
        return True
    scores, stage = member.scores.get("validation"), member.stages.get(member.released)
    return scores is not None and stage is not None and number(scores.average) != number(stage.validation)


def with_seeds(seeds: Sequence[int], *, of: int) -> str:
    """Return ` with seeds 0 and 1`; nothing of all seeds."""
    return "" if len(seeds) == of else f" with {_seeds(seeds)}"


def same_first_stage(part: Part, one: Difference) -> list[int]:
    """Return the seeds with which both arms of a question released one and the same stage 1, so that nothing is between them."""
    arm, against = _members(part, one.arm), _members(part, one.against)
    both = [seed for seed in arm if seed in against and one.split in arm[seed].scores and one.split in against[seed].scores]
    kept = [kept_first(each) for name in (one.arm, one.against) for each in part.arms if each.name == name]
    same = {seed for seed in both if all(seed in firsts for firsts in kept) and len({firsts[seed] for firsts in kept}) == 1}
    return [seed for seed, gap in zip(both, one.by_seed, strict=False) if gap == 0 and seed in same]


def of_first_stage(part: Part, one: Difference) -> list[int]:
    """Return the seeds with which a question on a changed model is about stage 1, for that was released in spite of a stage 2."""
    changed = next((arm for arm in part.arms if arm.name == one.against and arm.family == "ablation"), None)
    if changed is None:
        return []
    members = _members(part, one.arm)
    found = [members[seed] for seed in changed.seeds(one.split) if seed in members]
    return [member.seed for member in found if member.released == "stage1" and "stage2" in member.stages]


def sentences(part: Part, alike: Sequence[Sequence[str]]) -> list[str]:
    """Say which stage the scores of the arm that is looked at closely are of, and which arms are one and the same stage 1.

    Args:
        part: a comparison.
        alike: names of arms that have all their scores in common.
    """
    said = [f"{arm.name} released {released(arm)}{_lost(arm)}." for arm in part.close if has_both(arm)]
    firsts = {arm.name: kept_first(arm) for arm in part.arms}
    whole = {arm.name for arm in part.arms if arm.members and len(firsts[arm.name]) == len(arm.members)}
    for names in alike:
        if len(names) > 1 and whole.issuperset(names) and all(firsts[name] == firsts[names[0]] for name in names):
            why = "they released one and the same stage 1 (what came after it stands stage by stage)"
            said.append(f"{listed(names, most=12)} have the same scores: {why}.")
    return said


def released(arm: Arm) -> str:
    """Return e.g. `stage 1 with seeds 0 and 1, stage 2 with seed 2`."""
    stages = dict.fromkeys(member.released for member in arm.members)
    seeds = {stage: [member.seed for member in arm.members if member.released == stage] for stage in stages}
    if len(seeds) == 1 and len(arm.members) > 1:
        return f"{stage_name(next(iter(seeds)))} with all {len(arm.members)} seeds"
    return ", ".join(f"{stage_name(stage)} with {_seeds(found)}" for stage, found in seeds.items())


def _lost(arm: Arm) -> str:
    if not any(member.released == "stage1" for member in arm.members):
        return ""
    return ", the stage with the best validation average; where that is stage 1, nothing that stage 2 learnt is in its scores"


def stages_table(part: Part) -> Table | None:
    """Return what each stage reached, and which was released; None where no arm has two stages."""
    arms = [arm for arm in part.arms if has_both(arm)]
    if not part.is_comparison or not arms:
        return None
    source = _members(part, "stage1")
    heads = [
        "arm", "seeds", "released, by seed", "stage 1, validation", "stage 2, validation", "stage 1, test", "stage 2, test",
        "stage 2 - stage 1, test, by seed",
    ]  # fmt: skip
    caption = "Stage by stage, averages over tasks at the best step"
    return Table(caption=caption, columns=heads, rows=[_row(arm, source) for arm in arms], num_text=3)


def _row(arm: Arm, source: Mapping[int, Member]) -> list[Cell]:
    first = [_first_test(member, source) for member in arm.members]
    second = [member.stages["stage2"].test for member in arm.members]
    gains = [None if one is None or two is None else two - one for one, two in zip(first, second, strict=True)]
    stages = [stage_name(member.released) for member in arm.members]
    return [
        Cell(arm.name),
        Cell(", ".join(str(member.seed) for member in arm.members), [member.seed for member in arm.members]),
        Cell(", ".join(stages) if len(set(stages)) > 1 else stages[0], [member.released for member in arm.members]),
        *(spread_cell(spread(member.stages[stage].validation for member in arm.members)) for stage in sorted(BOTH)),
        *(
            spread_cell(None if mean(tests) is None else spread(test for test in tests if test is not None))
            for tests in (first, second)
        ),
        Cell(", ".join(number(gain, signed=True) for gain in gains) or NONE, [plain(gain) for gain in gains]),
    ]


def _first_test(member: Member, source: Mapping[int, Member]) -> float | None:
    """Return stage 1's test average; where stage 1 was taken from the arm `stage1`, it stands there."""
    own = member.stages["stage1"].test
    taken = source[member.seed].stages.get("stage1") if member.seed in source else None
    return taken.test if own is None and taken is not None else own


def _members(part: Part, name: str) -> dict[int, Member]:
    return {member.seed: member for arm in part.arms if arm.name == name for member in arm.members}


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {listed([str(seed) for seed in seeds])}"
