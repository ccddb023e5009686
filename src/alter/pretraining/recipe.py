"""A pretraining recipe: one YAML file that says which model reads which text, how, and for how long.

recipe YAML -> `load_pretrain_recipe` (overrides on top, paths made absolute) -> PretrainRecipe
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pydantic

from alter.config import Settings, apply_overrides, load_yaml, parse
from alter.errors import ConfigError

Objective = Literal["span_corruption", "text_infilling", "next_token"]


class ArchitectureSettings(Settings):
    """A model from scratch."""

    architecture: str
    """A model type of transformers, e.g. `t5`, `gpt2`, `llama`."""
    config: dict[str, Any] = {}
    """What differs from the architecture's own configuration; vocabulary size and special tokens come from the tokenizer."""


class EncoderDecoderSettings(Settings):
    """A pretrained encoder and a decoder from scratch."""

    encoder: str
    """The encoder: a hub id, a local folder, or `package:<python package that carries a model>`."""
    revision: str | None = None
    """Branch, tag or commit of a hub encoder."""
    encoder_layers: int | None = pydantic.Field(default=None, ge=1)
    """Use only the encoder's first layers, so many: what stands where is easier to read from them than from the last ones."""
    freeze_encoder: bool = True
    """Train the decoder alone."""
    save_encoder: bool = True
    """Write the encoder's weights into the finished model too. Without them the folder is small, names its encoder and needs it:
    `alter` puts the two together, transformers by itself does not."""
    decoder: ArchitectureSettings
    """The decoder, e.g. of architecture `bert`."""
    warm_start: bool = False
    """Begin with the encoder's layers (evenly chosen, if the decoder has fewer), its word embeddings (by spelling) and an attention to the
    encoder found by least squares on some of the text, instead of random weights. Architectures must be the same; sizes that
    decoder.config leaves out are the encoder's."""

    @pydantic.model_validator(mode="after")
    def _saves_what_it_trains(self) -> EncoderDecoderSettings:
        if not (self.freeze_encoder or self.save_encoder):
            raise ValueError(
                "save_encoder: false would lose an encoder that is trained; set freeze_encoder or save_encoder to true"
            )
        return self


class TokenizerTraining(Settings):
    """A tokenizer learned from the training files."""

    vocab_size: int = pydantic.Field(default=8192, ge=260)
    """Tokens in all: special tokens, sentinels, 256 bytes and what is learned."""
    kind: Literal["bpe", "unigram"] = "bpe"
    """How pieces are found; both spell over bytes, so that no text is unknown."""
    lower_case: bool = False
    """Fold capital letters; what the model writes is then lower case too."""
    num_sentinels: int = pydantic.Field(default=100, ge=0)
    """Tokens `<extra_id_0>`, ... that stand for masked spans."""
    max_characters: int = pydantic.Field(default=30_000_000, ge=1)
    """Learn from at most this much text, taken from the shuffled documents."""


class TokenizerSettings(Settings):
    """Where the tokenizer comes from: give one of the two."""

    path: str | None = None
    """A folder or hub id with a tokenizer."""
    train: TokenizerTraining | None = None
    """Learn one."""

    @pydantic.model_validator(mode="after")
    def _one(self) -> TokenizerSettings:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either path (a folder with a tokenizer) or train (learn one)")
        return self


class TextSource(Settings):
    """Plain text files in UTF-8: .txt, .txt.gz, .txt.xz; patterns such as `*.txt.xz` name several."""

    train: list[str] = pydantic.Field(min_length=1)
    """Text to learn from."""
    validation: list[str] = pydantic.Field(min_length=1)
    """Text of which the held-out loss is measured."""
    documents: Literal["blank_line", "line", "file"] = "blank_line"
    """What separates documents: a blank line, every line end, or the file's end."""
    shuffle_buffer: int = pydantic.Field(default=2_000, ge=1)
    """Documents held in memory to draw the next one from; 1 reads the files in order."""

    @pydantic.field_validator("train", "validation", mode="before")
    @classmethod
    def _one_is_a_list(cls, files: Any) -> Any:
        return [files] if isinstance(files, str) else files


class PretrainSettings(Settings):
    """How training goes."""

    per_device_train_batch_size: int = pydantic.Field(default=32, ge=1)
    """Blocks per process and micro-batch."""
    gradient_accumulation_steps: int = pydantic.Field(default=1, ge=1)
    """Micro-batches per optimizer step."""
    per_device_eval_batch_size: int = pydantic.Field(default=32, ge=1)
    """Blocks per batch of the held-out loss."""
    max_steps: int | None = pydantic.Field(default=None, ge=1)
    """Stop after this many optimizer steps."""
    max_seconds: float | None = pydantic.Field(default=None, gt=0)
    """Stop after this many seconds, held-out loss and checkpoints included. Rates then depend on the clock: two such runs are never
    equal bit by bit."""
    learning_rate: float = pydantic.Field(default=1e-3, gt=0)
    """The highest learning rate."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    """Shape of the decay over the run, which is as long as max_steps or max_seconds, whichever ends it."""
    warmup_steps: int = pydantic.Field(default=100, ge=0)
    """Steps over which the rate rises from 0."""
    optimizer: Literal["adamw", "adamw_scaled"] = "adamw"
    """`adamw_scaled` multiplies each tensor's rate by the root mean square of its values, as T5's own optimizer did: T5 starts with
    embeddings some twenty times as large as its matrices, and one rate cannot fit both. Its learning rates are around 2e-2."""
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    """AdamW's weight decay; biases and norms are exempt."""
    adam_beta2: float = pydantic.Field(default=0.98, gt=0, lt=1)
    """AdamW's memory of squared gradients: short runs forget faster than the usual 0.999."""
    max_grad_norm: float = pydantic.Field(default=1.0, gt=0)
    """Gradients are clipped to this norm over all parameters."""
    dropout: bool = False
    """Whether the model's own dropout is at work; few passes over much text are better off without. The saved configuration keeps
    it for fine-tuning either way."""
    mixed_precision: Literal["no", "bf16", "auto"] = "no"
    """Autocast type; `auto` is bf16 where the device multiplies it natively."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """How attention is computed; by default as transformers chooses. On CPUs `eager` trains short blocks faster than `sdpa`, whose backward
    pass is slow there."""
    eval_steps: int = pydantic.Field(default=250, ge=1)
    """Measure the held-out loss every so many steps, and at the start and the end."""
    eval_batches: int = pydantic.Field(default=8, ge=1)
    """Batches of validation blocks it is measured on: the same ones, masked alike, every time."""
    save_steps: int = pydantic.Field(default=250, ge=1)
    """Write a resumable checkpoint every so many steps, and at the end."""
    save_total_limit: int = pydantic.Field(default=2, ge=1)
    """Resumable checkpoints to keep."""
    logging_steps: int = pydantic.Field(default=10, ge=1)
    """Write a line to metrics.jsonl every so many steps."""

    @pydantic.model_validator(mode="after")
    def _ends(self) -> PretrainSettings:
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("give max_steps, max_seconds or both: pretraining ends at whichever comes first")
        return self


class PretrainRecipe(Settings):
    """One pretraining run."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """The run's name in results and model cards; by default the file's."""
    model_name_or_path: str | None = None
    """Go on from this model: a hub id, a local folder, or `package:NAME`."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    model: ArchitectureSettings | None = None
    """Or start from scratch."""
    encoder_decoder: EncoderDecoderSettings | None = None
    """Or teach a decoder from scratch to read a pretrained encoder."""
    tokenizer: TokenizerSettings | None = None
    """The tokenizer; a model that is gone on from has its own."""
    source: TextSource
    """The text."""
    objective: Objective | None = None
    """`span_corruption` (encoder-decoder models: write what was masked), `text_infilling` (the same models: write the whole text) or
    `next_token` (decoder-only models); by default the first or the last, which fits the model."""
    noise_density: float = pydantic.Field(default=0.15, gt=0, lt=1)
    """Share of a block that is masked (not next_token)."""
    mean_noise_span_length: float = pydantic.Field(default=3.0, ge=1)
    """Mean length of a masked span (not next_token)."""
    permute_sentences: bool = False
    """Shuffle the sentences that are read, so that their order must be found too (text_infilling)."""
    max_length: int = pydantic.Field(default=512, ge=8)
    """Tokens in a block, before masking."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Seed of everything random."""
    train: PretrainSettings
    """How training goes."""
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the finished model's weights; half precision halves the file."""
    licence: str | None = None
    """Licence of the finished model, for its card."""
    data_licence: str | None = None
    """Licence of the text, for the card."""

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> PretrainRecipe:
        given = [key for key in ("model_name_or_path", "model", "encoder_decoder") if getattr(self, key) is not None]
        if len(given) != 1:
            seen = " and ".join(given) or "none of them"
            raise ValueError(f"give one of model_name_or_path, model and encoder_decoder (seen: {seen})")
        if self.model_name_or_path is not None and self.tokenizer is not None:
            raise ValueError("model_name_or_path brings its own tokenizer; drop tokenizer")
        if self.model_name_or_path is None and self.tokenizer is None:
            raise ValueError("a model from scratch needs a tokenizer; e.g. tokenizer: {train: {vocab_size: 8192}}")
        if self.encoder_decoder is not None and self.objective == "next_token":
            raise ValueError(
                "objective next_token is for decoder-only models; encoder_decoder learns span_corruption or text_infilling"
            )
        if self.permute_sentences and self.objective != "text_infilling":
            raise ValueError("permute_sentences is for objective text_infilling; set that too, or drop permute_sentences")
        return self


def load_pretrain_recipe(path: str | Path, overrides: list[str] | None = None) -> PretrainRecipe:
    """Read a pretraining recipe and apply `key.path=value` overrides.

    Args:
        path: the YAML file; text files in it are relative to its folder.
        overrides: e.g. `["seed=1", "train.max_steps=100"]`.

    Raises:
        ConfigError: anything in it is wrong; the message names the key.
    """
    file = Path(path)
    settings = apply_overrides({"name": file.stem, **load_yaml(file)}, overrides or [])
    recipe = parse(PretrainRecipe, settings, where=str(file))
    files = {
        split: [_absolute(given, file.parent) for given in getattr(recipe.source, split)] for split in ("train", "validation")
    }
    return recipe.model_copy(update={"source": recipe.source.model_copy(update=files)})


def _absolute(given: str, folder: Path) -> str:
    """Return a path or pattern with `~` and `$VARIABLES` replaced, so that a recipe need not know where data lies on a machine."""
    path = os.path.expandvars(os.path.expanduser(given))
    if "$" in path:
        variable = path[path.index("$") :].split("/")[0]
        raise ConfigError(f"source: '{given}' names {variable}, which is not set; export it: it is the folder of your data")
    return str((folder / path).absolute())
