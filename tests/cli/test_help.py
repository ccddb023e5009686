"""`--help` answers at once, and what the command line offers is frozen: a change of it is a change for users."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from typing import Any

import pydantic
import pytest
import typer
from tests.cli.command import VERBS, Alter, environment, run_process

import alter as package
from alter.cli import app
from alter.recipe import Recipe

HEAVY = ("torch", "transformers", "accelerate", "sklearn", "scipy", "numpy", "matplotlib")
HELP_SECONDS = 0.5

CHILD = """
import atexit, json, sys, time
def told():
    print(json.dumps({"modules": sorted(sys.modules), "seconds": time.process_time()}), file=sys.stderr)
atexit.register(told)
from alter.cli import main
sys.argv = ["alter", *sys.argv[1:]]
main()
"""

SURFACE = {
    "alter": {"--version", "--help"},
    "train": {"recipe", "overrides", "--output-dir -o", "--resume", "--print-config", "--json", "--help"},
    "pretrain": {"recipe", "overrides", "--output-dir -o", "--resume", "--json", "--help"},
    "compare": {
        "recipe", "overrides", "--output-dir -o", "--arm", "--seed", "--arms-file", "--resume", "--list-arms", "--json", "--help",
    },
    "evaluate": {
        "model", "--split", "--recipe", "--task", "--batch-size", "--predictions-dir", "--predictions-format", "--device",
        "--json", "--help",
    },
    "predict": {
        "model", "--task -t", "--text", "--input -i", "--output -o", "--gate-weights", "--batch-size", "--device", "--json",
        "--help",
    },
    "merge": {
        "models", "--method -m", "--set", "--base", "--output-dir -o", "--adapters", "--rank", "--statistics", "--json", "--help",
    },
    "extract": {
        "model", "--task -t", "--output-dir -o", "--threshold", "--renormalise", "--recipe", "--split", "--device", "--json", "--help",
    },
    "report": {"folders", "--output -o", "--markdown", "--json", "--help"},
    "validate": {"recipe", "overrides", "--json", "--help"},
    "list": {"kind", "--json", "--help"},
    "demo": {"--output-dir -o", "--set", "--set-writing", "--again", "--json", "--help"},
}  # fmt: skip

RECIPE_KEYS = """
heads.dropout
heads.kind
heads.pooling
max_length
max_target_length
mixture.kind
mixture.maximum
mixture.temperature
model_name_or_path
mta.adapter.dropout
mta.adapter.kind
mta.adapter.lora_alpha
mta.adapter.r
mta.gate.granularity
mta.gate.kind
mta.gate.num_owned
mta.gate.other_logit
mta.gate.over
mta.gate.own_logit
mta.gate.own_weight
mta.gate.start
mta.gate.temperature
mta.gate.threshold
mta.gate.top_k
mta.num_adapters
mta.num_shared
mta.selector.granularity
mta.selector.kind
mta.selector.num_owned
mta.selector.other_logit
mta.selector.over
mta.selector.own_logit
mta.selector.own_weight
mta.selector.start
mta.selector.temperature
mta.selector.threshold
mta.selector.top_k
mta.sites
name
peft
preset
prompt_separator
revision
seed
stage1_from
stages.*.adapter_dropout
stages.*.early_stopping_patience
stages.*.eval_steps
stages.*.evals_per_epoch
stages.*.learning_rates.adapters
stages.*.learning_rates.backbone
stages.*.learning_rates.gate
stages.*.learning_rates.heads
stages.*.learning_rates.selector
stages.*.lr_scheduler_type
stages.*.max_steps
stages.*.num_train_epochs
stages.*.penalties
stages.*.router
stages.*.trains
stages.*.warmup_ratio
tasks.*.cap
tasks.*.chat
tasks.*.columns
tasks.*.decoding
tasks.*.generation.do_sample
tasks.*.generation.length_penalty
tasks.*.generation.max_new_tokens
tasks.*.generation.no_repeat_ngram_size
tasks.*.generation.num_beams
tasks.*.generation.repetition_penalty
tasks.*.generation.temperature
tasks.*.generation.top_k
tasks.*.generation.top_p
tasks.*.group
tasks.*.input
tasks.*.input_pair
tasks.*.kind
tasks.*.labels
tasks.*.length_normalization
tasks.*.metric_labels
tasks.*.metrics
tasks.*.name
tasks.*.source.hub
tasks.*.source.splits
tasks.*.source.test
tasks.*.source.train
tasks.*.source.validation
tasks.*.system
tasks.*.target
tasks.*.test_cap
tasks.*.validation_cap
tasks.*.weight
train.gradient_accumulation_steps
train.gradient_checkpointing
train.label_smoothing
train.logging_steps
train.loss_weighting
train.max_grad_norm
train.mixed_precision
train.packing
train.per_device_eval_batch_size
train.per_device_train_batch_size
train.report_to
train.save_steps
train.save_total_limit
train.test_stages
train.weight_decay
"""


def told_by_child(*arguments: str) -> tuple[str, dict[str, Any]]:
    """Return the standard output of a command, and which modules it loaded in how many seconds of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, env=environment(), timeout=120, check=True
    )
    told = json.loads(done.stderr)
    assert isinstance(told, dict)
    return done.stdout, told


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_answers_in_under_half_a_second_and_without_torch(verb: str | None) -> None:
    arguments = [verb, "--help"] if verb else ["--help"]
    out, told = told_by_child(*arguments)
    assert out.startswith(f"Usage: alter {verb or '[OPTIONS]'}")
    assert not set(HEAVY) & set(told["modules"])
    # Time of the processor, so that a busy machine does not fail the test; the second of two, once files are cached.
    seconds = min(told["seconds"], told_by_child(*arguments)[1]["seconds"])
    assert seconds < HELP_SECONDS


def test_listing_what_can_be_chosen_loads_no_torch() -> None:
    out, told = told_by_child("list", "--json")
    assert {"lora", "bottleneck", "ffn_clone"} <= json.loads(out)["adapters"].keys()
    assert not {"torch", "transformers", "accelerate"} & set(told["modules"])


def test_the_help_of_the_command_names_every_verb(alter: Alter) -> None:
    outcome = alter.works("--help")
    for verb in VERBS:
        assert f"  {verb} " in outcome.out


def test_the_command_without_a_verb_shows_its_help(alter: Alter) -> None:
    assert "Commands:" in alter("").err + alter().out + alter().err


def test_the_version_is_the_packages(alter: Alter) -> None:
    assert alter.works("--version").out == f"alter {package.__version__}\n"


def test_python_m_alter_is_the_command() -> None:
    assert run_process("--version").out == f"alter {package.__version__}\n"


def commands() -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    return {"alter": root, **root.commands}


def flags(command: Any) -> set[str]:
    found = {" ".join(sorted(parameter.opts, reverse=True)) for parameter in command.params}
    return {" ".join(sorted(opts.split(), key=len, reverse=True)) for opts in found} | {"--help"}


def test_the_flags_are_frozen() -> None:
    # A new flag is a promise: add it here, to the docs of its verb and to CHANGELOG.md.
    assert {name: flags(command) for name, command in commands().items()} == SURFACE


def test_every_verb_and_every_flag_explains_itself() -> None:
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


def model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    """Return the settings class inside an annotation such as `dict[str, Stage]` or `Stage | None`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return next((found for argument in typing.get_args(annotation) if (found := model_in(argument)) is not None), None)


def keys_of(kind: type[pydantic.BaseModel], path: str = "") -> list[str]:
    found = []
    for name, field in kind.model_fields.items():
        inner = model_in(field.annotation)
        many = {"stages": "*.", "tasks": "*."}.get(name, "")
        found += [f"{path}{name}"] if inner is None else keys_of(inner, f"{path}{name}.{many}")
    return found


def test_the_keys_of_a_recipe_are_frozen() -> None:
    # A key that goes or changes its name breaks the recipes of users: say so in CHANGELOG.md.
    assert sorted(keys_of(Recipe)) == RECIPE_KEYS.split()


def test_every_key_of_a_recipe_explains_itself() -> None:
    def check(kind: type[pydantic.BaseModel]) -> None:
        for name, field in kind.model_fields.items():
            inner = model_in(field.annotation)
            assert field.description, f"{kind.__name__}.{name}"
            if inner is not None:
                check(inner)

    check(Recipe)
