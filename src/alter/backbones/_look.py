"""A base model without its weights: what a run can know of it in a second.

config and tokenizer -> its kind and family, and a skeleton: the modules of the whole model, without memory for parameters. Of weights
that lie here the beginning is read, which tells half a file, or what Git LFS left, from a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alter.backbones import FAMILIES
from alter.backbones._compose import is_composed, read_encoder
from alter.backbones._find import family_for_config, sites_of
from alter.backbones._load import (
    LOAD_ERRORS,
    _check_config,
    _check_tokenizer,
    _first_line,
    _load_tokenizer,
    _quiet,
    _remedy,
    _source,
    _tokenizer_source,
)
from alter.errors import ModelError
from alter.nn.site import FFNSite, Kind

NO_CONNECTION = (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What config and tokenizer say of a base model.

    Attributes:
        kind: how it reads and writes.
        model_type: its config's.
        family: the family that covers it; None where its FFNs are searched by structure, which only the loaded model allows.
        sites: its FFNs; None where they are searched.
        skeleton: the model, its parameters without values.
        tokenizer: of what it reads.
    """

    kind: Kind
    model_type: str
    family: str | None
    sites: list[FFNSite] | None
    skeleton: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def look_at(name: str, *, revision: str | None = None) -> Look:
    """Read a base model's config and tokenizer; of a hub model these are downloaded, and no weights.

    Raises:
        ModelError: `load_base` would refuse it too; not all that it refuses is seen here.
    """
    source = _source(name, revision=revision)
    _check_weights(name, source)
    with _quiet():
        model_type = _check_config(name, source, revision=revision)
        if is_composed(source):
            told = read_encoder(source)
            _check_config(str(told["name"]), _source(str(told["name"]), revision=told["revision"]), revision=told["revision"])
        skeleton = _skeleton(name, source, revision=revision)
        tokenizer = _load_tokenizer(name, *_tokenizer_source(source, revision=revision))
    _check_tokenizer(name, tokenizer, skeleton, model_type=model_type)
    family = next((family for family in FAMILIES.names() if model_type in FAMILIES.get(family).model_types), None)
    return Look(
        kind=family_for_config(skeleton.config).kind,
        model_type=model_type,
        family=family,
        sites=None if family is None else sites_of(skeleton),
        skeleton=skeleton,
        tokenizer=tokenizer,
    )


def is_out_of_reach(error: BaseException) -> bool:
    """Return whether a base model could not be looked at because there is no connection, and nothing else is known to be wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NO_CONNECTION):
            return True
        cause = cause.__cause__
    return False


def _check_weights(name: str, source: str) -> None:
    try:
        for file in Path(source).glob("*.safetensors"):  # of a hub model there are none
            with safe_open(file, framework="pt"):
                pass
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{name}: the weights cannot be read ({_first_line(error)}): the file is truncated, or a pointer left by Git LFS; "
            f"copy or download it again"
        ) from error


def _skeleton(name: str, source: str, *, revision: str | None) -> PreTrainedModel:
    classes = {"encoder": AutoModel, "encoder-decoder": AutoModelForSeq2SeqLM, "decoder": AutoModelForCausalLM}
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            model = classes[family_for_config(config).kind].from_config(config, trust_remote_code=False)
    except (*LOAD_ERRORS, TypeError, AttributeError) as error:  # a config.json of something else
        raise ModelError(f"{name}: no model can be built from its config.json ({_first_line(error)}){_remedy(source)}") from error
    assert isinstance(model, PreTrainedModel)
    return model
