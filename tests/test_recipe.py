"""A recipe from YAML to frozen settings, and every complaint on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alter.config import dump_yaml, parse
from alter.errors import CheckpointError, ConfigError
from alter.mta_settings import ADAPTERS, GATES
from alter.presets import PRESETS
from alter.recipe import Recipe, load_recipe, resolve_recipe
from alter.tasks.read import source_of

STAGE: dict[str, Any] = {"router": "selector", "trains": ["heads"]}


def task(name: str = "intent", **settings: Any) -> dict[str, Any]:
    return {"name": name, "source": {"train": f"{name}.jsonl"}, **settings}


def resolve(*overrides: str, **settings: Any) -> Recipe:
    given = {"model_name_or_path": "some/model", "tasks": [task()], **settings}
    return resolve_recipe(given, folder=Path("/data"), where="r.yaml", overrides=list(overrides))


def complaint(*overrides: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(*overrides, **settings)
    return str(caught.value)


# ---- presets -----------------------------------------------------------------------------------------------


def test_alter_lite_is_the_default() -> None:
    recipe = resolve()
    assert recipe.preset == "alter-lite"
    assert (recipe.mta.adapter.kind, recipe.mta.sites, recipe.mta.gate.kind) == ("lora", "all", "task")
    assert list(recipe.stages) == ["stage1", "stage2"]
    assert "backbone" not in recipe.stages["stage1"].trains


def test_alter_starts_as_the_reference_does() -> None:
    mta = resolve(preset="alter").mta
    selector = mta.selector
    assert (mta.adapter.kind, mta.sites, mta.gate.kind) == ("ffn_clone", "last", "outputs")
    assert (selector.temperature, selector.own_logit, selector.other_logit, selector.num_owned) == (0.1, 0.22, 0.20, 2)
    assert "backbone" in resolve(preset="alter").stages["stage1"].trains


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_whole_and_resolving_leaves_it_unchanged(preset: str) -> None:
    before = repr(PRESETS[preset])
    resolved = resolve("stages.stage1.learning_rates.heads=0.5", "mta.num_shared=3", "stages.stage2=null", preset=preset)
    assert repr(PRESETS[preset]) == before
    assert resolved.stages["stage1"].learning_rates.heads == 0.5
    stage1 = PRESETS[preset]["stages"]["stage1"]
    assert resolved.stages["stage1"].learning_rates.adapters == stage1["learning_rates"]["adapters"]


@pytest.mark.parametrize("preset", PRESETS)
def test_stage_2_takes_a_fifth_of_the_steps_at_most_by_default(preset: str) -> None:
    stages = resolve(preset=preset).stages
    epochs = {name: stage.num_train_epochs for name, stage in stages.items()}
    assert 0 < epochs["stage2"] <= 0.2 * sum(epochs.values())
    # and of the validations, which take time too
    validations = {name: stage.num_train_epochs * stage.evals_per_epoch for name, stage in stages.items()}
    assert validations["stage2"] <= 0.25 * sum(validations.values())


def test_the_recipe_lies_over_the_preset_and_overrides_over_both() -> None:
    recipe = resolve("mta.adapter.r=4", mta={"adapter": {"r": 8, "dropout": 0.2}})
    assert (recipe.mta.adapter.r, recipe.mta.adapter.dropout, recipe.mta.adapter.kind) == (4, 0.2, "lora")
    assert resolve("preset=alter").mta.adapter.kind == "ffn_clone"


def test_the_resolved_recipe_resolves_to_itself(tmp_path: Path) -> None:
    recipe = resolve("seed=7", "tasks.intent.cap=5", mta={"sites": [0, 2]})
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml(recipe.model_dump(mode="json")), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_a_saved_recipe_of_one_stage_reloads_as_it_was_and_resumes(tmp_path: Path) -> None:
    from alter.training.rundir import RunDirectory

    # Labels that YAML would read as numbers unless they stand in quotes.
    recipe = resolve("stages.stage2=null", "tasks.intent.labels=['08', '1e3', '010', 'no']", name="08")
    with RunDirectory(tmp_path, recipe, resume=False):
        saved = load_recipe(tmp_path / "recipe.yaml")
    assert saved == recipe
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))["stages"]["stage2"] is None
    with RunDirectory(tmp_path, saved, resume=True):
        pass
    changed = pytest.raises(CheckpointError, match=r"other settings than this recipe \(stages\.stage2\)")
    with changed, RunDirectory(tmp_path, resolve(name="08", tasks=recipe.model_dump()["tasks"]), resume=True):
        pass


@pytest.mark.parametrize("preset", PRESETS)
def test_a_resolved_recipe_of_one_stage_keeps_one_stage(preset: str) -> None:
    recipe = resolve("stages.stage2=null", preset=preset)
    again = resolve_recipe(recipe.model_dump(mode="json"), folder=Path("/data"), where="again")
    assert list(again.stages) == ["stage1"]


# ---- stages ------------------------------------------------------------------------------------------------


def test_stage2_null_drops_it_in_yaml_and_as_an_override() -> None:
    assert list(resolve(stages={"stage2": None}).stages) == ["stage1"]
    assert list(resolve("stages.stage2=null").stages) == ["stage1"]
    recipe = resolve(stages={"stage1": {"num_train_epochs": 9}, "stage2": None})
    assert recipe.stages["stage1"].num_train_epochs == 9


def test_only_stage1_cannot_be_dropped() -> None:
    assert "stages.stage1" in complaint(stages={"stage1": None})
    assert "stages: Input should be a valid dictionary (seen: None)" in complaint(stages=None)


@pytest.mark.parametrize("stages", [["stage2"], 3, "stage2"])
def test_stages_of_a_wrong_shape_is_a_config_error(stages: Any) -> None:
    assert "r.yaml: stages: Input should be a valid dictionary" in complaint(stages=stages)


def test_a_whole_stage_of_an_unknown_name_is_refused() -> None:
    assert "unknown stage 'stage3'; allowed: stage1, stage2. Did you mean 'stage" in complaint(stages={"stage3": STAGE})


def test_a_misspelt_stage_is_told_as_such() -> None:
    message = complaint(stages={"stag1": {"num_train_epochs": 3}})
    assert message.startswith("r.yaml: stages: unknown stage 'stag1'; allowed: stage1, stage2. Did you mean 'stage1'?")
    assert "missing" not in message


def test_stage2_alone_is_refused() -> None:
    settings = resolve().model_dump()
    del settings["stages"]["stage1"]
    with pytest.raises(ConfigError, match=r"stages has no stage1; stage 2 builds on it"):
        parse(Recipe, settings, where="r.yaml")


# ---- every validator ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["preset=alter-light"], "unknown preset 'alter-light'; allowed: alter, alter-lite. Did you mean 'alter-lite'?"),
        (["preset=null"], "unknown preset 'None'"),
        (["mta.adapter.kind=lra"], "mta.adapter.kind: unknown adapter kind 'lra'; allowed: "),
        (["mta.adapter.kind=lra"], "Did you mean 'lora'?"),
        (["mta.selector.kind=one-hot"], "mta.selector.kind: unknown gate kind 'one-hot'; allowed: "),
        (["mta.gate.kind=liner"], "Did you mean 'linear'?"),
        (["mta.adapter.r=0"], "mta.adapter.r: Input should be greater than or equal to 1 (seen: 0)"),
        (["mta.adapter.lora_alpha=0"], "mta.adapter.lora_alpha"),
        (["mta.adapter.dropout=1"], "mta.adapter.dropout: Input should be less than 1 (seen: 1)"),
        (["mta.selector.own_weight=1"], "mta.selector.own_weight: Input should be less than 1"),
        (["mta.gate.temperature=0"], "mta.gate.temperature"),
        (["mta.gate.granularity=word"], "mta.gate.granularity: Input should be 'token' or 'sequence' (seen: 'word')"),
        (["mta.gate.top_k=0"], "mta.gate.top_k"),
        (["mta.num_adapters=0"], "mta.num_adapters"),
        (["mta.num_shared=-1"], "mta.num_shared"),
        (["mta.sites=first"], "must be all, last, none, every-K (e.g. every-2) or a list of positions (seen: 'first')"),
        (["mta.sites=every-0"], "must be all, last, none, every-K"),
        (["mta.sites=every-"], "must be all, last, none, every-K"),
        (["mta.sites=[]"], "a list of sites needs at least one position, each once"),
        (["mta.sites=[1, 1]"], "a list of sites needs at least one position, each once"),
        (["mta.sites=every-\u00b2"], "must be all, last, none, every-K"),
        (["mta.sites=true"], "mta.sites: true and false are no numbers"),
        (
            ["mta.selector.kind=outputs"],
            "mta.selector.kind is outputs, which weighs what a selector has mixed; allowed: adamix, linear, one_hot, ",
        ),
        (
            ["mta.gate.kind=selector"],
            "gives shared adapters no weight, but mta.num_shared is 2; set mta.num_shared: 0, or use kind task",
        ),
        (["mta.gate.kind=one_hot"], "mta.gate.kind one_hot gives shared adapters no weight"),
        (["mta.num_adapters=2"], "mta.num_adapters is 2, but the recipe has 1 task to own them; lower it"),
        (
            ["mta.num_adapters=1", "mta.selector.num_owned=2"],
            "mta.selector.num_owned is 2, but there are 1 task adapters; lower it to at most 1",
        ),
        (["mta.gate.kind=outputs", "mta.gate.top_k=1"], "mta.gate.top_k is 1, but kind outputs does not read it; leave it out"),
        (["mta.selector.top_k=2"], "mta.selector.top_k is 2, but kind one_hot does not read it"),
        (["mta.gate.top_k=1"], "but over: shared keeps stage 1's weights on task adapters; set mta.gate.over: all"),
        (
            ["mta.gate.temperature=2"],
            "mta.gate.temperature is 2.0, but kind task does not read it; set mta.gate.temperature: 1.0",
        ),
        (["mta.num_shared=0", "mta.gate.kind=outputs"], "mta.gate.kind outputs weighs shared adapters, but mta.num_shared is 0"),
        (
            ["mixture.kind=size"],
            "mixture.kind: Input should be 'proportional', 'equal', 'temperature' or 'weights' (seen: 'size')",
        ),
        (["mixture.temperature=0.5"], "mixture.temperature"),
        (["mixture.kind=weights"], "mixture.kind is weights, but tasks ['intent'] have no weight"),
        (["heads.pooling=first"], "heads.pooling"),
        (["stages.stage1.trains=[]"], "trains is empty; name at least one group, or set num_train_epochs: 0"),
        (["stages.stage1.trains=[head]"], "stages.stage1.trains.0"),
        (["stages.stage1.trains=[gate]"], "trains names 'gate', but router: selector does not use it"),
        (
            ["stages.stage2.trains=[selector]", "mta.gate.over=all"],
            "stages.stage2.trains names 'selector', but router: gate does not use it: a gate of kind task with over: all replaces its "
            "weights; drop it",
        ),
        (
            ["stages.stage2.trains=[selector]", "mta.gate.kind=uniform"],
            "but router: gate does not use it: a gate of kind uniform replaces its weights; drop it",
        ),
        (["stages.stage1.router=switch"], "stages.stage1.router: Input should be 'selector' or 'gate' (seen: 'switch')"),
        (["stages.stage1.warmup_ratio=1.1"], "stages.stage1.warmup_ratio"),
        (["stages.stage1.num_train_epochs=-1"], "stages.stage1.num_train_epochs"),
        (["stages.stage1.epochs=3"], "unknown key 'stages.stage1.epochs'; allowed: "),
        (["stages.stage1.learning_rates.head=1"], "Did you mean 'heads'?"),
        (["stages.stage1.learning_rates.heads=0"], "stages.stage1.learning_rates.heads"),
        (["train.batch_size=3"], "unknown key 'train.batch_size'; allowed: "),
        (["train.mixed_precision=fp8"], "train.mixed_precision: Input should be 'no', 'bf16'"),
        (["train.report_to=[wandb]"], "train.report_to.0"),
        (["seed=-1"], "seed: Input should be greater than or equal to 0 (seen: -1)"),
        (["max_length=3"], "max_length"),
        (["max_lenght=64"], "unknown key 'max_lenght'; allowed: "),
        (["max_lenght=64"], "Did you mean 'max_length'?"),
        (["name=two words"], "name: String should match pattern"),
        (["name=../up"], "name: String should match pattern"),
        (["model_name_or_path=null"], "model_name_or_path: Input should be a valid string (seen: None)"),
        (["tasks.intent.metrics=[acuracy]"], "unknown metric 'acuracy'; allowed: accuracy, "),
        (["tasks.intent.labels=[a]"], "labels holds 1 label; a classification needs at least 2"),
        (["tasks.intent.labels=[a, b, a]"], "labels holds ['a'] more than once"),
        (["tasks.intent.labels=[1, '1']"], "labels holds ['1'] more than once"),
        (["tasks.intent.labels=[a, b]", "tasks.intent.metric_labels=[c]"], "metric_labels ['c'] are not among labels ['a', 'b']"),
        (["tasks.intent.kind=regression", "tasks.intent.labels=[a, b]"], "a regression task has no labels"),
        (["tasks.intent.labels=[a, null]"], "labels: position 1 holds null; a label is text: write it in quotes"),
        (["tasks.intent.labels=[[a], b]"], "labels: position 0 holds a list"),
        (
            ["tasks.intent.metrics=[f1]"],
            "the metric f1 needs exactly one positive label, seen: none; set metric_labels: [<label>]",
        ),
        (["tasks.intent.metrics=[accuracy, f1]", "tasks.intent.metric_labels=[a, b]"], "one positive label, seen: ['a', 'b']"),
        (["tasks.intent.metrics=[f1_over_labels]"], "the metric f1_over_labels needs the labels to look at, seen: none"),
        (["tasks.intent.metrics=[f1_over_labels]", "tasks.intent.metric_labels=[]"], "the labels to look at, seen: []"),
        (
            ["tasks.intent.metrics=[accuracy, pearson]"],
            "the metric pearson scores regression, and this task's kind is classification; use e.g. accuracy or f1_macro, or set",
        ),
        (
            ["tasks.intent.kind=regression", "tasks.intent.metrics=[accuracy]"],
            "the metric accuracy scores classification, and this task's kind is regression; use e.g. pearson or spearmanr",
        ),
        (
            ["tasks.intent.kind=regression", "tasks.intent.metrics=[mse]"],
            "the first of metrics is mse, of which lower is better",
        ),
        (["tasks.intent.source.splits=[train]"], "splits chooses among those of a hub data set"),
        (["tasks.intent.source={hub: a/b, splits: []}"], "splits is []; name at least one"),
        (
            ["tasks.intent.source={hub: a/b, splits: [train, train]}"],
            "name at least one of train, validation and test, each once",
        ),
        (["tasks.intent.source={hub: a/b, splits: [dev]}"], "source.splits.0: Input should be 'train', 'validation' or 'test'"),
        (["tasks.intent.cap=0"], "tasks.intent.cap: Input should be"),
        (["tasks.intent.weight=0"], "tasks.intent.weight: Input should be"),
        (["tasks.intent.lables=[a, b]"], "unknown key 'tasks.intent.lables'; allowed: "),
        (
            ["tasks.intent.source.tran=x"],
            "unknown key 'tasks.intent.source.tran'; allowed: hub, splits, test, train, validation. Did you mean 'train'?",
        ),
        (["tasks.intent.source=null"], "tasks ['intent'] have no source; say where the rows are"),
        (["tasks.intent.source.train=null"], "names no file; give train, validation and test, or hub"),
        (["tasks.intent.name=a/b"], "tasks.0.name: String should match pattern"),
        (["tasks=null"], "tasks: Input should be a valid list (seen: None)"),
    ],
)
def test_every_mistake_names_the_key_and_what_is_allowed(overrides: list[str], expected: str) -> None:
    message = complaint(*overrides)
    assert message.startswith("r.yaml: ")
    assert expected in message


@pytest.mark.parametrize("tasks", [None, [], {}, "intent.yaml", 3])
def test_tasks_must_be_a_list(tasks: Any) -> None:
    assert "r.yaml: tasks must be a list of at least one task" in complaint(tasks=tasks)


def test_tasks_of_one_name_and_missing_weights_are_refused() -> None:
    assert "tasks names ['intent'] more than once" in complaint(tasks=[task(), task("area"), task()])
    some = [task("a", weight=1), task("b"), task("c")]
    assert "but tasks ['b', 'c'] have no weight" in complaint(tasks=some, mixture={"kind": "weights"})
    assert resolve(tasks=some[:1], mixture={"kind": "weights"}).tasks[0].weight == 1


def test_a_recipe_without_a_model_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^r\.yaml: the key 'model_name_or_path' is missing; add it$"):
        resolve_recipe({"tasks": [task()]}, folder=Path(), where="r.yaml")


def test_words_that_yaml_1_1_read_as_yes_and_no_stay_words() -> None:
    assert resolve("train.mixed_precision=no").train.mixed_precision == "no"
    assert resolve("tasks.intent.labels=[yes, no]").tasks[0].labels == ["yes", "no"]
    assert resolve("tasks.intent.labels=[true, false]").tasks[0].labels == ["true", "false"]
    assert resolve("stages.stage1.learning_rates.adapters=2e-4").stages["stage1"].learning_rates.adapters == 2e-4


@pytest.mark.parametrize("sites", ["all", "last", "every-1", "every-12", [0], [3, 1]])
def test_sites_of_every_shape(sites: Any) -> None:
    assert resolve(mta={"sites": sites}).mta.sites == sites


def test_a_preset_of_a_wrong_shape_is_a_config_error() -> None:
    assert "unknown preset '['alter']'; allowed: alter, alter-lite." in complaint(preset=["alter"])


def test_epochs_without_end_are_refused() -> None:
    assert "stages.stage1.num_train_epochs: Input should be a finite number" in complaint("stages.stage1.num_train_epochs=.inf")


# ---- tasks by name and by file -----------------------------------------------------------------------------


def test_an_override_reaches_a_task_by_name_or_position() -> None:
    tasks = [task("intent"), task("area", cap=3)]
    recipe = resolve("tasks.area.cap=9", "tasks.0.group=g", "tasks.intent.source.test=t.jsonl", tasks=tasks)
    assert [spec.cap for spec in recipe.tasks] == [None, 9]
    assert recipe.tasks[0].group == "g"
    assert recipe.tasks[0].source is not None
    assert recipe.tasks[0].source.test == "/data/t.jsonl"
    assert tasks[1]["cap"] == 3, "what the caller gave stays as it was"


def test_a_dot_in_a_task_name_does_not_send_an_override_astray() -> None:
    recipe = resolve("tasks.glue.rte.cap=9", "tasks.glue.cap=3", tasks=[task("glue"), task("glue.rte")])
    assert [spec.cap for spec in recipe.tasks] == [3, 9]


def test_a_misspelt_task_gets_the_nearest_name() -> None:
    assert complaint("tasks.intnet.cap=9") == (
        "tasks.intnet.cap=9: 'intnet' is no name in 'tasks'; allowed: intent. Did you mean 'intent'?"
    )


def test_a_bad_override_of_a_task_repeats_what_was_typed() -> None:
    assert "'tasks.intent.cap'" in complaint("tasks.intent.cap")


def test_a_task_file_brings_its_own_folder_and_its_name(tmp_path: Path) -> None:
    (tmp_path / "tasks" / "data").mkdir(parents=True)
    (tmp_path / "tasks" / "stance.yaml").write_text("source: {train: data/train.jsonl}\nlabels: [no, yes]\nmetrics: [f1_macro]\n")
    (tmp_path / "run.yaml").write_text(
        "model_name_or_path: some/model\n"
        "tasks:\n"
        "- tasks/stance.yaml\n"
        "- {name: area, source: {train: area.jsonl, test: /abs/test.jsonl}}\n"
    )
    recipe = load_recipe(tmp_path / "run.yaml", ["tasks.stance.cap=3"])
    assert recipe.name == "run"
    stance, area = recipe.tasks
    assert (stance.name, stance.labels, stance.metrics, stance.cap) == ("stance", ["no", "yes"], ["f1_macro"], 3)
    assert stance.source is not None
    assert area.source is not None
    assert stance.source.train == str((tmp_path / "tasks" / "data" / "train.jsonl").resolve())
    assert area.source.train == str((tmp_path / "area.jsonl").resolve())
    assert area.source.test == "/abs/test.jsonl"


def test_a_mistake_in_a_task_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "stance.yaml").write_text("source: {train: x}\nlables: [a, b]\n")
    (tmp_path / "run.yaml").write_text("model_name_or_path: m\ntasks: [stance.yaml]\n")
    with pytest.raises(ConfigError, match=r"stance\.yaml: unknown key 'lables'.*Did you mean 'labels'\?"):
        load_recipe(tmp_path / "run.yaml")
    (tmp_path / "run.yaml").write_text("model_name_or_path: m\ntasks: [none.yaml]\n")
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_recipe(tmp_path / "run.yaml")


def test_a_recipe_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_the_kinds_a_recipe_may_name_are_the_files_that_are_there() -> None:
    assert {"lora", "bottleneck", "ffn_clone"} <= set(ADAPTERS.names())
    assert {"one_hot", "uniform", "selector", "task", "linear", "outputs"} <= set(GATES.names())


def test_reading_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from alter.recipe import resolve_recipe; "
        "tasks = [{'name': 'a', 'source': {'train': 'x'}}]; "
        "resolve_recipe({'model_name_or_path': 'm', 'tasks': tasks}, folder=Path(), where='w'); "
        "sys.exit(' '.join(m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- what fits together ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one_hot", "selector", "uniform", "task", "linear"])
def test_these_kinds_may_select(kind: str) -> None:
    assert resolve(f"mta.selector.kind={kind}").mta.selector.kind == kind


@pytest.mark.parametrize("kind", ["one_hot", "selector"])
def test_a_gate_that_leaves_shared_adapters_out_goes_with_none(kind: str) -> None:
    assert resolve(f"mta.gate.kind={kind}", "mta.num_shared=0").mta.gate.kind == kind


def test_a_lone_task_owns_its_one_adapter_under_every_preset() -> None:
    assert resolve(preset="alter").mta.selector.num_owned == 2
    two = [task("a"), task("b")]
    assert resolve(preset="alter", tasks=two).mta.selector.num_owned == 2
    assert "mta.selector.num_owned is 3, but there are 2 task adapters" in complaint(
        "mta.selector.num_owned=3", preset="alter", tasks=two
    )
    assert resolve("mta.num_adapters=1", "mta.selector.kind=uniform", "mta.selector.num_owned=2", tasks=two).mta.num_adapters == 1


def test_of_more_than_two_adapters_a_task_owns_all_but_one_at_most() -> None:
    three = [task("a"), task("b"), task("c")]
    assert resolve(preset="alter", tasks=three).mta.selector.num_owned == 2
    message = complaint("mta.selector.num_owned=3", preset="alter", tasks=three)
    assert "mta.selector.num_owned is 3, but there are 3 task adapters; lower it to at most 2" in message


def test_settings_of_a_kind_that_reads_them_are_accepted() -> None:
    assert resolve("mta.gate.over=all", "mta.gate.top_k=1").mta.gate.top_k == 1
    mta = resolve("mta.selector={kind: task, top_k: 1, over: shared}").mta  # a selector does not read `over`
    assert mta.selector.top_k == 1


@pytest.mark.parametrize("kind", ["uniform", "task", "linear"])
def test_copies_under_a_selector_that_keeps_them_equal_are_refused(kind: str) -> None:
    copies = [f"mta.selector.kind={kind}", "mta.selector.temperature=1", "mta.adapter.kind=ffn_clone"]
    message = complaint(*copies, tasks=[task("a"), task("b")])
    assert f"mta.selector.kind is {kind}, which weighs all adapters alike at the start" in message
    assert "Set mta.selector.kind: selector, or mta.adapter.kind: lora" in message
    assert resolve(*copies).mta.selector.kind == kind, "one copy has no other to be equal to"


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["mta.selector.kind=uniform"], "mta.selector.kind is uniform, and mta.adapter.kind merged_bottleneck mixes parameters"),
        (["mta.gate.kind=uniform"], "shared adapters start as nothing, and would stay equal"),
        (["mta.gate.kind=adamix", "mta.num_shared=1"], "shared adapters start as nothing, and drawn alone would stay so"),
    ],
)
def test_mixed_parameters_under_weights_that_teach_them_nothing_are_refused(settings: list[str], what: str) -> None:
    merged, two = ["mta.adapter.kind=merged_bottleneck"], [task("a"), task("b")]
    message = complaint(*merged, *settings, tasks=two)
    assert what in message
    assert "or mta.adapter.kind: bottleneck" in message
    assert resolve("mta.adapter.kind=bottleneck", *settings, tasks=two).mta.adapter.kind == "bottleneck"
    assert (
        resolve(*merged, *settings, "mta.num_adapters=1", "mta.num_shared=0", tasks=two).mta.adapter.kind == "merged_bottleneck"
    )


def test_metrics_of_the_right_kind_with_their_labels_are_accepted() -> None:
    recipe = resolve(
        tasks=[
            task("stance", metrics=["f1_over_labels", "exact_match"], metric_labels=["favor", "against"]),
            task("irony", metrics=["accuracy", "f1"], metric_labels=["ironic"]),
            task("degree", kind="regression", metrics=["spearmanr", "mse", "exact_match"]),
        ]
    )
    assert [spec.primary_metric for spec in recipe.tasks] == ["f1_over_labels", "accuracy", "spearmanr"]


def test_a_broken_metric_of_another_package_is_told_as_the_task_s_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "their_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[alter.metrics]\ngone = uninstalled_metrics\nodd = their_odd_metric\n")
    (tmp_path / "their_odd_metric.py").write_text("KIND = 'ranking'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert "the metric 'gone' cannot be imported from uninstalled_metrics" in complaint("tasks.intent.metrics=[gone]")
        message = complaint("tasks.intent.metrics=[odd]")
        assert "their_odd_metric: KIND is 'ranking'; allowed: None, 'classification', 'regression'" in message
    finally:
        sys.modules.pop("their_odd_metric", None)


# ---- the hub -----------------------------------------------------------------------------------------------


def test_a_local_folder_of_a_hub_data_set_becomes_absolute_and_a_hub_id_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("glue", "odd:name"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    monkeypatch.setenv("SOME_DATA", str(tmp_path / "data"))
    given = ["data/glue", "data/glue:rte", "data/odd:name", "$SOME_DATA/glue:rte", "nyu-mll/glue:rte", "imdb"]
    settings = {
        "model_name_or_path": "m",
        "tasks": [{"name": f"t{number}", "source": {"hub": hub}} for number, hub in enumerate(given)],
    }
    recipe = resolve_recipe(settings, folder=tmp_path, where="r.yaml")
    data = str((tmp_path / "data").resolve())
    expected = [f"{data}/glue", f"{data}/glue:rte", f"{data}/odd:name", f"{data}/glue:rte", "nyu-mll/glue:rte", "imdb"]
    assert [spec.source.hub for spec in recipe.tasks if spec.source] == expected


def test_a_hub_split_may_be_left_out_and_stays_out_when_the_recipe_is_saved() -> None:
    recipe = resolve("tasks.intent.source={hub: a/b, splits: [train, validation], validation: v.jsonl}")
    again = resolve_recipe(recipe.model_dump(mode="json"), folder=Path("/elsewhere"), where="again")
    assert again == recipe
    found = [source_of(recipe.tasks[0], split) for split in ("train", "validation", "test")]
    assert found == [("hub", "a/b"), ("file", "/data/v.jsonl"), None]
    every = resolve("tasks.intent.source={hub: a/b}").tasks[0]
    assert source_of(every, "test") == ("hub", "a/b")
    files = resolve().tasks[0].source
    assert files is not None
    assert files.test is None
