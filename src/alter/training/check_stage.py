"""What a stage asks of a model that it does not have, told before anything is trained."""

from __future__ import annotations

from alter.errors import ConfigError
from alter.model import MTAModel
from alter.recipe import StageSettings


def check_stage(model: MTAModel, name: str, stage: StageSettings) -> None:
    """Refuse a stage that has nothing to train in this model, or drops adapters that it cannot do without.

    Raises:
        ConfigError: with the setting, what is allowed and the remedy.
    """
    groups = model.parameter_groups()
    if not any(groups[group] for group in stage.trains):
        there = ", ".join(group for group, members in groups.items() if members)
        raise ConfigError(
            f"stages.{name}.trains is [{', '.join(stage.trains)}], and this model has no such parameters; add a group that has "
            f"some ({there}), or set stages.{name}.num_train_epochs: 0"
        )
    if stage.adapter_dropout > 0 and any(mta.bank.replaced for mta in model.mtas):  # a kind of another package
        raise ConfigError(
            f"stages.{name}.adapter_dropout is {stage.adapter_dropout:g}, but adapters of kind {model.settings.adapter.kind} stand in for "
            f"the FFN, so a row cannot do without one; set it to 0, or mta.adapter.kind to lora or bottleneck, which add to the base"
        )
