"""One pretraining run, from recipe to model folder: what `alter pretrain` does.

recipe -> files found -> tokenizer -> model -> loop -> RUN/model, RUN/results.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from alter.errors import CheckpointError, ConfigError
from alter.pretraining.design import build_design, wants_ends
from alter.pretraining.loop import Pretrainer
from alter.pretraining.observer import PretrainObserver, Unwatched
from alter.pretraining.quiet import quiet
from alter.pretraining.recipe import PretrainRecipe, load_pretrain_recipe
from alter.pretraining.result import Text, model_card, results_of, save_model, save_results
from alter.pretraining.text import Documents, digest_of, find_files
from alter.pretraining.tokens import load_tokenizer, train_tokenizer
from alter.tensors import write_error
from alter.training.precision import resolve_precision
from alter.training.run import environment
from alter.training.rundir import RESULTS, RunDirectory

if TYPE_CHECKING:
    from alter.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PretrainRun:
    """A finished run.

    Attributes:
        folder: the run directory.
        results: what results.json holds.
    """

    folder: Path
    results: dict[str, Any]

    @property
    def model(self) -> Path:
        """The model's folder, to be used as `model_name_or_path`."""
        return self.folder / "model"


def pretrain(
    recipe: str | Path | PretrainRecipe,
    *,
    output_dir: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    observer: PretrainObserver | None = None,
) -> PretrainRun:
    """Pretrain a model on plain text, from scratch or further.

    Args:
        recipe: a YAML file, or a resolved recipe.
        output_dir: the run directory; the model is in `model/` inside.
        overrides: `key.path=value` settings over the recipe's file.
        resume: go on with the run in `output_dir`; a finished one is returned as it is.
        observer: is told what happens; by default nobody.

    Raises:
        AlterError: anything a user can mend; see `alter.errors`.
    """
    if isinstance(recipe, PretrainRecipe) and overrides:
        raise ConfigError(
            "pretrain got a resolved recipe and overrides; hand the overrides to load_pretrain_recipe(path, overrides)"
        )
    resolved = recipe if isinstance(recipe, PretrainRecipe) else load_pretrain_recipe(recipe, list(overrides))
    text = Text(train=find_files(resolved.source.train), validation=find_files(resolved.source.validation))
    # Processes without an accelerator find each other (gloo) only where accelerate is told that there is none.
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu)
    folder = Path(output_dir)
    # A run directory needs of a recipe only that it can be written down.
    with RunDirectory(folder, cast("Recipe", resolved), resume=resume, writes=state.is_main_process) as directory:
        state.wait_for_everyone()
        if directory.finished:
            return PretrainRun(folder=folder, results=_read(folder / RESULTS))
        results = _pretrain(resolved, text, folder, resume=resume, observer=observer or Unwatched(), state=state)
    return PretrainRun(folder=folder, results=results)


def _pretrain(
    recipe: PretrainRecipe, text: Text, folder: Path, *, resume: bool, observer: PretrainObserver, state: PartialState
) -> dict[str, Any]:
    source = recipe.source
    documents = Documents(text.train, separator=source.documents, seed=recipe.seed, shuffle_buffer=source.shuffle_buffer)
    validation = Documents(text.validation, separator=source.documents, seed=recipe.seed, shuffle_buffer=source.shuffle_buffer)
    observer = observer if state.is_main_process else Unwatched()
    tokenizer = _tokenizer(recipe, documents, folder / "tokenizer", resume=resume, observer=observer, state=state)
    design = build_design(recipe, tokenizer, documents.epoch(0))
    trainer = Pretrainer(
        design,
        recipe=recipe,
        documents=documents,
        validation=validation,
        digest=digest_of(text.train),
        folder=folder,
        observer=observer,
        resume=resume,
    )
    progress = trainer.fit()
    precision = resolve_precision(recipe.train.mixed_precision)
    results = results_of(recipe, design, progress, {**environment(), "precision": precision})
    if state.is_main_process:
        card = model_card(recipe, text, results)
        save_model(design, folder / "model", dtype=recipe.save_dtype, card=card)
        save_results(results, folder / RESULTS)
    state.wait_for_everyone()
    return results


def _tokenizer(
    recipe: PretrainRecipe,
    documents: Documents,
    folder: Path,
    *,
    resume: bool,
    observer: PretrainObserver,
    state: PartialState,
) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of a model from scratch; one that is learned is kept in the run, so that a resumed run has the same."""
    if recipe.tokenizer is None:
        return None
    if recipe.tokenizer.train is None:
        assert recipe.tokenizer.path is not None
        return load_tokenizer(recipe.tokenizer.path)
    if state.is_main_process and not (resume and folder.is_dir()):
        observer.told(f"learning a tokenizer of {recipe.tokenizer.train.vocab_size:,} tokens")
        learned = train_tokenizer(documents.epoch(0), recipe.tokenizer.train, ends_texts=wants_ends(recipe))
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            with quiet():
                learned.save_pretrained(str(draft))
            shutil.rmtree(folder, ignore_errors=True)
            draft.replace(folder)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise write_error(error, folder) from error
    state.wait_for_everyone()
    return load_tokenizer(str(folder))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the run is finished, but its results are damaged") from None
    assert isinstance(content, dict)
    return content
