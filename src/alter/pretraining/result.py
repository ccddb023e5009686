"""What a run leaves behind: RUN/model, whole or not at all, with its card, and RUN/results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from transformers import EncoderDecoderModel

from alter.backbones._compose import ENCODER, save_without_encoder
from alter.pretraining.design import TARGET_TOKENIZER, Design
from alter.pretraining.progress import PretrainProgress
from alter.pretraining.quiet import quiet
from alter.pretraining.recipe import PretrainRecipe
from alter.results import write_json, write_text
from alter.tensors import whole_folder, write_error

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Text:
    """The files of a run."""

    train: Sequence[Path]
    validation: Sequence[Path]


def results_of(recipe: PretrainRecipe, design: Design, progress: PretrainProgress, environment: dict[str, str]) -> dict[str, Any]:
    """Return what results.json holds."""
    trainable = sum(parameter.numel() for parameter in design.model.parameters() if parameter.requires_grad)
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "base": design.base,
        "seed": recipe.seed,
        "steps": progress.step,
        "best_step": progress.best_step,
        "seconds": round(progress.seconds, 2),
        "tokens": progress.tokens,
        "blocks": progress.blocks,
        "epochs": progress.cursor.epoch,
        "held_out": {"loss": progress.best_loss, "bits_per_character": progress.best_bits_per_character},
        "curve": [list(point) for point in progress.curve],
        "parameters": design.model.num_parameters(),
        "trainable_parameters": trainable,
        "environment": environment,
    }


def save_results(results: dict[str, Any], path: Path) -> None:
    """Write results.json.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        write_json(results, path)
    except OSError as error:
        raise write_error(error, path) from error


def save_model(design: Design, folder: Path, *, dtype: str, card: str) -> None:
    """Write a model folder: weights, configuration, tokenizer, card.

    Raises:
        TrainingError: the disk is full; what was there before is untouched.
    """
    objective = design.objective
    with whole_folder(folder) as draft:
        with quiet():
            _save_weights(design, draft, getattr(torch, dtype))
            if design.encoder is None:  # otherwise it is where the encoder is
                objective.source.save_pretrained(str(draft))
            if objective.target is not objective.source:
                objective.target.save_pretrained(str(draft / TARGET_TOKENIZER))
        write_text(card, draft / "README.md")


def _save_weights(design: Design, folder: Path, dtype: torch.dtype) -> None:
    if design.encoder is None:
        model: nn.Module = design.model
        model.to(dtype)
        design.model.save_pretrained(str(folder))
        return
    assert isinstance(design.model, EncoderDecoderModel)
    save_without_encoder(design.model, folder, dtype=dtype)
    write_json(design.encoder, folder / ENCODER)


def model_card(recipe: PretrainRecipe, text: Text, results: dict[str, Any]) -> str:
    """Return the card: what the model is, what it read, how well it did."""
    head: dict[str, Any] = {"library_name": "transformers", "tags": ["pretraining", recipe.objective or "text"]}
    if recipe.licence:
        head["license"] = recipe.licence
    if results["base"]:
        head["base_model"] = results["base"]
    held_out = results["held_out"]
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {recipe.name}", ""]
    lines += [_origin(results), ""]
    lines += ["## Text", "", "| file | bytes | use |", "|---|---|---|"]
    for use, files in (("training", text.train), ("held-out loss", text.validation)):
        lines += [f"| {path.name} | {path.stat().st_size:,} | {use} |" for path in files]
    lines += ["", f"Licence of the text: {recipe.data_licence or 'not stated; ask whoever trained the model'}.", ""]
    lines += [
        "## Training",
        "",
        f"{results['steps']:,} steps, {results['tokens']:,} tokens, {results['seconds']:,.0f} seconds, seed {results['seed']}. Weights of "
        f"step {results['best_step']:,}, which had the lowest held-out loss: {held_out['loss']:.4f} nats per target token, "
        f"{held_out['bits_per_character']:.4f} bits per character of target text.",
        "",
        "## Limits",
        "",
        "The model knows what its text says, errors and prejudices included. It was trained to fill in or go on with text, not to",
        "follow instructions: teach it a task first, e.g. with `alter train`.",
        "",
    ]
    return "\n".join(lines)


def _origin(results: dict[str, Any]) -> str:
    parameters = f"{results['parameters']:,} parameters, {results['trainable_parameters']:,} of them trained"
    if results["base"]:
        return f"Pretrained further from `{results['base']}`: {parameters}."
    return f"Pretrained from scratch: {parameters}."
