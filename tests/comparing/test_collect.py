"""What an arm cost, counted by hand, and answers read back as the metrics take them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.comparing.conftest import Compared
from tests.recipes import toy

from alter.backbones._load import load_base
from alter.comparing.bootstrap import scorer
from alter.comparing.choice import own_arms
from alter.comparing.collect import Done, answered_by
from alter.comparing.run import compare
from alter.comparing.tables import answer, differences_table, left_out, markdown, size, stages_table
from alter.comparing.yardsticks import fit_and_score
from alter.comparison import ArmResult, ArmRun, Budget, Difference, StageScores, verdict
from alter.errors import CheckpointError
from alter.results import read_results
from alter.tasks.spec import TaskSpec
from alter.training.prepare import read_rows

HIDDEN, INNER, SITES = 32, 64, 2
HEADS = {"mood": 2 * HIDDEN + 2, "stars": HIDDEN + 1}
PER_RANK = SITES * 2 * (HIDDEN + INNER)  # a row of A and a column of B on each of the FFN's two projections
LORA = 4 * PER_RANK


@pytest.fixture(scope="module")
def base(compared: Compared) -> int:
    model, _ = load_base(compared.recipe.model_name_or_path)
    return sum(parameter.numel() for parameter in model.parameters())


def budget(compared: Compared, name: str) -> Budget:
    return compared.result.arms[name].runs[0].budget


def bytes_of(compared: Compared, name: str) -> int:
    """Return the bytes of an arm's tensors on disk."""
    folders = compared.result.arms[name].runs[0].folders
    return sum(file.stat().st_size for folder in folders for file in (compared.folder / folder / "model").rglob("*.safetensors"))


# ---- budgets -------------------------------------------------------------------------------------------------------


def test_one_fine_tuned_model(compared: Compared, base: int) -> None:
    found = budget(compared, "multi-full")
    whole = base + sum(HEADS.values())
    assert (found.trainable_parameters, found.total_parameters) == (whole, whole)
    assert (found.steps, found.relative_time, found.stage2_share) == (4, 1.0, None)
    assert found.stored_bytes == bytes_of(compared, "multi-full")
    assert found.stored_bytes == pytest.approx(4 * whole, rel=0.1), "float32, and the files' own headers"


def test_a_fine_tuned_model_a_task_counts_every_time(compared: Compared, base: int) -> None:
    found = budget(compared, "single-full")
    whole = 2 * base + sum(HEADS.values())
    assert (found.trainable_parameters, found.total_parameters, found.steps) == (whole, whole, 8)
    assert found.stored_bytes == bytes_of(compared, "single-full")


def test_a_lora_a_task_needs_the_base_once(compared: Compared, base: int) -> None:
    found = budget(compared, "single-lora")
    changed = 2 * LORA + sum(HEADS.values())
    assert (found.trainable_parameters, found.total_parameters) == (changed, base + changed)
    assert found.stored_bytes == 4 * base + bytes_of(compared, "single-lora")
    assert found.steps == 8


def test_the_shared_lora_is_as_large_as_the_whole_mta(compared: Compared, base: int) -> None:
    found = budget(compared, "shared-lora")
    assert found.trainable_parameters == (2 + 2) * LORA + sum(HEADS.values())
    assert found.stored_bytes == 4 * base + bytes_of(compared, "shared-lora")


def test_the_method_counts_what_either_stage_trained_and_the_stage_1_it_stands_on(compared: Compared, base: int) -> None:
    found = budget(compared, "alter-lite")
    gate = SITES * 2 * 2  # a weight for each of two tasks on each of two shared adapters
    changed = 4 * LORA + gate + sum(HEADS.values())
    assert (found.trainable_parameters, found.total_parameters) == (changed, base + changed)
    stages = read_results(compared.folder / "arms" / "alter-lite" / "seed0" / "results.json").stages
    assert found.steps == stages["stage1"].steps + stages["stage2"].steps == 4
    seconds = stages["stage1"].seconds + stages["stage2"].seconds
    assert found.seconds == pytest.approx(seconds)
    assert found.stage2_share == pytest.approx(stages["stage2"].seconds / seconds, abs=1e-4)
    assert found.relative_time == pytest.approx(seconds / (budget(compared, "multi-full").seconds or 0), abs=1e-3)
    [stage1] = read_results(compared.folder / "arms" / "stage1" / "seed0" / "results.json").stages.values()
    assert stages["stage1"].seconds == stage1.seconds, "the time is that of the arm that trained it"


def test_memory_is_the_most_that_any_of_the_runs_had(compared: Compared) -> None:
    for name in ("multi-full", "single-full"):
        run = compared.result.arms[name].runs[0]
        results = [read_results(compared.folder / folder / "results.json") for folder in run.folders]
        peaks = [stage.peak_memory_bytes for found in results for stage in found.stages.values()]
        assert all(peak is not None and peak > 10**7 for peak in peaks)
        assert run.budget.peak_memory_bytes == max(peak or 0 for peak in peaks)


@pytest.mark.parametrize("name", ["majority", "zeroed-shared"])
def test_what_is_not_trained_costs_nothing(compared: Compared, name: str) -> None:
    assert budget(compared, name) == Budget()


def test_copies_of_ffns_do_not_hide_the_ffns_that_a_frozen_base_still_has(compared: Compared, base: int, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(compared.folder, tmp_path / "out"))
    clones = {"adapter": {"kind": "ffn_clone"}, "sites": "last", "selector": {"kind": "one_hot"}}
    own = own_arms({"clones": {"mta": clones, "stages": {"stage2": None}}}, where="arms.yaml")
    found = compare(compared.recipe, output_dir=folder, arms=["clones"], own=own, resume=True).arms["clones"].runs[0].budget
    ffn = 2 * HIDDEN * INNER + HIDDEN + INNER
    assert found.trainable_parameters == 2 * ffn + sum(HEADS.values())
    assert found.total_parameters == base + 4 * ffn + gate_parameters(folder) + sum(HEADS.values())
    files = (folder / "arms" / "clones" / "seed0" / "model").rglob("*.safetensors")
    assert found.stored_bytes == 4 * base + sum(file.stat().st_size for file in files)


def gate_parameters(folder: Path) -> int:
    return read_results(folder / "arms" / "clones" / "seed0" / "results.json").parameters["gate"]


# ---- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alter-lite", "single-full", "majority", "zeroed-shared"])
def test_answers_read_back_score_as_the_run_did(compared: Compared, name: str) -> None:
    rows = read_rows(compared.recipe)
    [run] = compared.result.arms[name].runs
    place = compared.folder / "arms" / name / "seed0"
    tasks = [spec.name for spec in rows.specs]
    done = Done(folders=[place / task for task in tasks] if name == "single-full" else [place], per_task=name == "single-full")
    for split, scores in run.splits.items():
        for spec in rows.specs:
            found = answered_by(done, spec, split)
            assert scorer(found)(np.arange(12)) == pytest.approx(scores.tasks[spec.name].score, abs=1e-9)


def test_lines_end_where_json_lines_end_and_not_at_every_sign_of_a_line_s_end(tmp_path: Path) -> None:
    odd = "one\u2028two\x85three\x0bfour\x1cfive"
    record = {"input": odd, "prediction": odd, "target": "right", "references": ["right", odd]}
    path = tmp_path / "predictions" / "test" / "say.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps(record, ensure_ascii=False) + "\n" + json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    spec = TaskSpec(name="say", kind="generation", metrics=["exact_match"])
    found = answered_by(Done(folders=[tmp_path]), spec, "test")
    assert list(found.predictions) == [odd, odd]
    assert list(found.references) == [["right", odd]] * 2
    assert scorer(found)(np.arange(2)) == 100.0


@pytest.mark.parametrize("text", [None, '{"prediction": "a", "tar', '{"prediction": "a"}', "[1]", '{"target": "a"}'])
def test_answers_that_are_gone_or_damaged_are_told_with_their_place_and_the_remedy(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "predictions" / "test" / "mood.jsonl"
    path.parent.mkdir(parents=True)
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        CheckpointError, match=r"test/mood\.jsonl: this arm's answers are gone or damaged .*; delete .* with --resume$"
    ):
        answered_by(Done(folders=[tmp_path]), TaskSpec(name="mood"), "test")


def test_what_is_no_number_counts_as_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "test" / "stars.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{"input": "", "prediction": given, "target": right} for given, right in ((1, 1.0), (None, 2), ("two", 6.0))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = answered_by(Done(folders=[tmp_path]), TaskSpec(name="stars", kind="regression"), "test")
    assert list(found.predictions) == [1.0, 3.0, 3.0]
    assert list(found.references) == [1.0, 2.0, 6.0]


def test_a_yardstick_s_rows_say_both_texts_of_a_pair(tmp_path: Path) -> None:
    rows = read_rows(toy(tmp_path, tasks=["reply"]))
    found = fit_and_score(rows, "majority", seed=0)
    assert list(found.splits) == ["validation", "test"]
    for split, tasks in found.records.items():
        [records] = tasks.values()
        examples = rows.splits[split]["reply"]
        assert [record["input"] for record in records] == [f"{one.text}\t{one.text_pair}" for one in examples]
        assert [record["target"] for record in records] == [one.label for one in examples]


# ---- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "by_seed", "said"),
    [
        (0.5, 2.0, [1.0, 1.4], "yes"),
        (-2.0, -0.5, [-1.0, -1.4], "no, worse"),
        (0.5, 2.0, [2.6, -0.2], "not told apart"),
        (-0.1, 2.0, [1.0, 1.0], "not told apart"),
        (-2.0, 0.0, [-1.0, -1.0], "not told apart"),
        (-2.0, -0.1, [-1.0, 0.0], "not told apart"),
        (0.01, 0.03, [0.02], "not told apart"),
        (0.5, 2.0, [1.0], "yes (one seed)"),
        (-2.0, -0.5, [-1.0], "no, worse (one seed)"),
        (0.0, 0.0, [0.0, 0.0], "the same scores"),
        (0.0, 0.0, [0.5, -0.5], "not told apart"),
        (float("nan"), float("nan"), [float("nan")], "not told apart"),
    ],
)
def test_an_answer_needs_an_interval_without_zero_and_seeds_that_agree(
    low: float, high: float, by_seed: list[float], said: str
) -> None:
    mean = sum(by_seed) / len(by_seed)
    one = Difference(question="?", arm="a", against="b", split="test", difference=mean, low=low, high=high, by_seed=by_seed)
    word = said.removesuffix(" (one seed)")
    assert (answer(one), verdict(one)) == (said, {"yes": "better", "no, worse": "worse"}.get(word, word))


def test_an_interval_that_is_none_has_no_sign() -> None:
    nan = float("nan")
    one = Difference(question="?", arm="a", against="b", split="test", difference=nan, low=nan, high=nan, by_seed=[nan])
    assert differences_table([one]).splitlines()[-1] == "| ? | a - b | test | - | - | - | not told apart |"


def test_a_run_of_a_second_stage_alone_has_no_line_stage_by_stage(compared: Compared) -> None:
    arm = compared.result.arms["alter-lite"]
    runs = [arm.runs[0].model_copy(update={"stages": {"stage2": arm.runs[0].stages["stage2"]}})]
    arms = {"alter-lite": arm, "second": arm.model_copy(update={"runs": runs})}
    page = markdown(compared.result.model_copy(update={"arms": arms}))
    table = page.split("## Stage by stage")[1].split("##")[0]
    assert "| alter-lite |" in table
    assert "| second |" not in table


def test_what_a_second_stage_changed_is_paired_by_seed(compared: Compared) -> None:
    [run] = compared.result.arms["alter-lite"].runs

    def with_tests(seed: int, one: float | None, two: float | None) -> ArmRun:
        stages = {"stage1": StageScores(validation=1.0, test=one), "stage2": StageScores(validation=1.0, test=two)}
        return run.model_copy(update={"seed": seed, "stages": stages})

    runs = [with_tests(0, 50.0, None), with_tests(1, None, 70.0), with_tests(2, 60.0, 61.0)]
    arms = {"alter-lite": compared.result.arms["alter-lite"].model_copy(update={"runs": runs})}
    line = stages_table(compared.result.model_copy(update={"arms": arms})).splitlines()[-1]
    assert line.split(" | ")[5] == "-, -, +1.0"


def test_what_delta_m_leaves_out_is_said_with_its_arm_where_it_is_one_s_alone(compared: Compared) -> None:
    def with_left_out(name: str, tasks: list[str]) -> ArmResult:
        arm = compared.result.arms[name]
        summary = arm.summary["test"].model_copy(update={"left_out": tasks})
        return arm.model_copy(update={"summary": {"test": summary}})

    arms = {"alter-lite": with_left_out("alter-lite", ["mood"]), "multi-full": with_left_out("multi-full", ["mood", "stars"])}
    comparison = compared.result.model_copy(update={"arms": arms})
    assert left_out(comparison, "test") == [
        "delta_m leaves out mood, stars (of multi-full): below 1 percent, or no number, with a seed."
    ]
    assert left_out(comparison, "validation") == []


def test_bytes_in_words() -> None:
    assert [size(number) for number in (None, 90e6, 12_345e6, 450e3)] == ["-", "90 MB", "12,345 MB", "0.5 MB"]
