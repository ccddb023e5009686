"""A recipe's base with its MTA and heads, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alter.backbones._codec import codec_for
from alter.backbones._load import base_fingerprint, load_base
from alter.data.codec import Codec
from alter.model import MTAModel
from alter.model_config import AlterConfig, BaseInfo
from alter.recipe import Recipe
from alter.training.prepare import Rows, check_lengths, check_packing, check_targets, check_tasks
from alter.version import __version__


@dataclass(frozen=True, kw_only=True)
class Equipped:
    """An equipped base.

    Attributes:
        model: the base with its MTA and heads, on the CPU.
        codec: the base's way with text.
        fingerprint: the base's, before anything was added.
    """

    model: MTAModel
    codec: Codec
    fingerprint: str

    def config(self, model: MTAModel, recipe: Recipe, rows: Rows) -> AlterConfig:
        """Return what a model directory says of `model`, this one as it was trained."""
        trained = any("backbone" in stage.trains and stage.num_train_epochs > 0 for stage in recipe.stages.values())
        return AlterConfig(
            alter_version=__version__,
            name=recipe.name,
            base=BaseInfo(
                name=recipe.model_name_or_path,
                revision=recipe.revision,
                model_type=str(model.backbone.config.model_type),
                fingerprint=self.fingerprint,
                trained=trained,
            ),
            preset=recipe.preset,
            router=model.router,
            max_length=recipe.max_length,
            max_target_length=recipe.max_target_length,
            prompt_separator=recipe.prompt_separator,
            mta=recipe.mta,
            peft=recipe.peft,
            heads=recipe.heads,
            tasks=rows.specs,
            scales={task: (scale.mean, scale.std) for task, scale in rows.scales.items()},
        )


def equip_base(recipe: Recipe, rows: Rows) -> Equipped:
    """Load a recipe's base and equip it for the tasks of its rows.

    Raises:
        ModelError: the base cannot be loaded or equipped.
        ConfigError: the base cannot do a task, or has too few positions for the lengths.
    """
    base, tokenizer = load_base(recipe.model_name_or_path, revision=recipe.revision)
    codec = codec_for(base, tokenizer, recipe, name=recipe.model_name_or_path, revision=recipe.revision)
    check_tasks(rows.specs, codec.kind)
    check_lengths(codec, base)
    check_targets(rows.specs, codec)
    check_packing(recipe, codec.kind)
    fingerprint = base_fingerprint(base)
    torch.manual_seed(recipe.seed)
    num_outputs = [1 if spec.kind == "regression" else len(spec.labels or []) for spec in rows.specs]
    names = [spec.name for spec in rows.specs]
    model = MTAModel(base, task_names=names, settings=recipe.mta, num_outputs=num_outputs, heads=recipe.heads, peft=recipe.peft)
    return Equipped(model=model, codec=codec, fingerprint=fingerprint)
