"""Load a base model and its tokenizer, quietly and with no half-loaded result.

transformers fills weights that a file lacks with random ones and builds an empty tokenizer where a folder has none, each with a
message at most. Here both are errors: a model that trains from noise, or reads every word as unknown, still gives numbers.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from alter.backbones._compose import compose, is_composed, read_encoder
from alter.backbones._find import family_for, family_for_config, is_covered
from alter.backbones._package import has_pickle, has_weights, resolve_base
from alter.errors import ModelError, counted

__all__ = ["base_fingerprint", "load_base", "load_target_tokenizer", "resolve_base"]

LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError, StrictDataclassError, HFValidationError)
SAMPLES_PER_TENSOR = 64
TARGET_TOKENIZER = "target_tokenizer"


def load_base(name: str, *, revision: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model in float32 and in evaluation mode, and its tokenizer: an encoder without head, or a model that writes.

    Weights are read from safetensors files only, and no code that comes with a model is ever run. Weights stored in half
    precision are widened to float32, where no small update of an optimizer is lost; `mixed_precision` chooses the compute type.

    Args:
        name: a hub id, a local folder, or `package:NAME`.
        revision: branch, tag or commit of a hub model.

    Raises:
        ModelError: the model cannot be found, read completely or equipped.
    """
    source = _source(name, revision=revision)
    with _quiet():
        model_type = _check_config(name, source, revision=revision)
        model = _load_model(name, source, revision=revision)
        tokenizer = _load_tokenizer(name, *_tokenizer_source(source, revision=revision))
    _check_tokenizer(name, tokenizer, model, model_type=model_type)
    return model, tokenizer


def load_target_tokenizer(name: str, *, revision: str | None = None) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of what the base model writes, where it is not the one of what it reads: folder `target_tokenizer/`.

    Raises:
        ModelError: it is there and cannot be read.
    """
    folder = Path(_source(name, revision=revision)) / TARGET_TOKENIZER
    if not folder.is_dir():
        return None
    with _quiet():
        return _load_tokenizer(f"{name}/{TARGET_TOKENIZER}", str(folder), None)


def base_fingerprint(model: PreTrainedModel) -> str:
    """Return 16 hex digits that tell one base from another: names, shapes, types and a sample of values of its parameters.

    Take it before the model is equipped. A head for labels changes nothing; one that writes text counts, where it has weights of its
    own. The pooler is left out: no head reads it, and transformers fills it with random values where a checkpoint lacks it.
    """
    digest = hashlib.sha256()
    told = dict(model.base_model.named_parameters())
    if model.can_generate():
        inside = {id(parameter) for parameter in told.values()}
        told |= {f"head.{name}": parameter for name, parameter in model.named_parameters() if id(parameter) not in inside}
    for name, parameter in sorted(told.items()):
        if name.startswith("pooler.") or ".pooler." in name:
            continue
        flat = parameter.detach().reshape(-1)
        # A sample spread over the tensor: its first rows are often special tokens, which fine-tuning barely moves.
        sample = flat[:: max(1, flat.numel() // SAMPLES_PER_TENSOR)][:SAMPLES_PER_TENSOR]
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(sample.to("cpu", torch.float32).numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def _source(name: str, *, revision: str | None) -> str:
    """Return the hub id or the checked local folder behind `name`."""
    source = resolve_base(name)
    folder = Path(source).expanduser()
    if not folder.exists() and not _looks_local(source):
        return source
    if revision is not None:
        raise ModelError(f"{name}: revision '{revision}' is for hub models only, and this is a local folder; drop revision")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise ModelError(f"{name}: {what}; give a folder with config.json and model.safetensors, a hub id or package:NAME")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name}: the folder has no config.json{_nearby(folder)}; give the folder that save_pretrained wrote")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{name}: {_no_safetensors(folder)}")
    return str(folder)


def _looks_local(source: str) -> bool:
    """Return whether a name that is no folder here can only have been meant as one: a hub id is `name` or `owner/name`."""
    return source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1


def _nearby(folder: Path) -> str:
    below = sorted(file.parent.name for file in folder.glob("*/config.json") if has_weights(file.parent))
    return f" (but its folders {below} do)" if below else ""


def _no_safetensors(folder: Path) -> str:
    if not has_pickle(folder):
        return "the folder has no weights (no .safetensors file); copy or download the model again"
    return (
        "the weights are in pickle format only (pytorch_model.bin), which can run foreign code on loading; allowed: safetensors. "
        "If you trust the file, convert it once: AutoModel.from_pretrained(FOLDER, use_safetensors=False).save_pretrained(FOLDER)"
    )


def _check_config(name: str, source: str, *, revision: str | None) -> str:
    """Return the model type; refuse what cannot be equipped before any weights are downloaded.

    A model type that no family covers but transformers knows passes: only the model itself shows whether its FFNs can be found.
    """
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    except LOAD_ERRORS as error:
        raise ModelError(f"{name}: {_why_no_config(source, error)}") from error
    model_type = config.get("model_type")
    try:
        if is_covered(model_type) or model_type not in CONFIG_MAPPING:
            family_for(model_type, is_decoder=bool(config.get("is_decoder", False)))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    return str(model_type)


def _why_no_config(source: str, error: Exception) -> str:
    if Path(source).is_dir():
        return f"config.json cannot be read ({_first_line(error)}); copy or download the model again"
    return (
        f"no such folder here, and the hub does not give it ({_first_line(error)}); "
        f"check the spelling and the connection, or give a local folder or package:NAME"
    )


def _load_composed(name: str, folder: str) -> PreTrainedModel:
    """Load a folder that leaves its encoder to another one."""
    told = read_encoder(folder)
    if is_composed(resolve_base(str(told["name"]))):  # perhaps this very folder, without end
        raise ModelError(
            f"{name}: its encoder.json names '{told['name']}', which is a decoder that needs an encoder itself; copy the model again"
        )
    encoder, _ = load_base(str(told["name"]), revision=told["revision"])
    found = base_fingerprint(encoder)
    if found != told["fingerprint"]:
        raise ModelError(
            f"{name}: its decoder was trained to read another '{told['name']}' (fingerprint {told['fingerprint']}) than the one found here "
            f"({found}); install the encoder that it was made for"
        )
    return compose(folder, encoder)


def _load_model(name: str, source: str, *, revision: str | None) -> PreTrainedModel:
    if is_composed(source):
        try:
            return _load_composed(name, source)
        except (*LOAD_ERRORS, TypeError, AttributeError) as error:  # a config.json of something else
            raise ModelError(f"{name}: the model cannot be put together ({_first_line(error)}){_remedy(source)}") from error
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        reader = {"encoder": AutoModel, "encoder-decoder": AutoModelForSeq2SeqLM, "decoder": AutoModelForCausalLM}
        model, info = reader[family_for_config(config).kind].from_pretrained(
            source,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # so that the check below can name them; by itself transformers only logs a table
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ModelError(
            f"{name}: the weights cannot be read ({_first_line(error)}): the file is truncated, or a pointer left by Git LFS; "
            f"copy or download it again"
        ) from error
    except LOAD_ERRORS as error:
        raise ModelError(f"{name}: the model cannot be loaded ({_first_line(error)}){_remedy(source)}") from error
    _check_complete(name, info)
    assert isinstance(model, PreTrainedModel)
    return model


def _remedy(source: str) -> str:
    if Path(source).is_dir():
        return "; check that config.json and the weights belong together, or copy the model again"
    return "; a hub model needs safetensors weights and a connection; or give a local folder or package:NAME"


def _check_complete(name: str, info: dict[str, Any]) -> None:
    mismatched = sorted(key for key, *_ in info["mismatched_keys"])
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    shape, gone = "another shape than config.json says", "missing from the weights"
    for has, have, what, keys in (("has", "have", shape, mismatched), ("is", "are", gone, missing)):
        if keys:
            number = counted(len(keys), f"tensor {has}", f"tensors {have}")
            raise ModelError(
                f"{name}: {number} {what}, e.g. {keys[0]}; config.json and the weights do not belong together, "
                f"copy or download the model again"
            )


def _tokenizer_source(source: str, *, revision: str | None) -> tuple[str, str | None]:
    """Return where the tokenizer of what a model reads is; a folder that leaves its encoder to another one leaves this there too."""
    if is_composed(source) and not (Path(source) / "tokenizer_config.json").is_file():
        told = read_encoder(source)
        return _source(str(told["name"]), revision=told["revision"]), told["revision"]
    return source, revision


def _load_tokenizer(name: str, source: str, revision: str | None) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for a file that it cannot parse
        raise ModelError(
            f"{name}: the tokenizer cannot be loaded ({_first_line(error)}); "
            f"put the model's tokenizer.json beside its config.json"
        ) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, *, model_type: str) -> None:
    vocabulary = tokenizer.get_vocab()
    if set(vocabulary) <= set(tokenizer.all_special_tokens):
        raise ModelError(
            f"{name}: there is no vocabulary for the '{model_type}' tokenizer, so every word would be unknown; "
            f"put the model's tokenizer.json beside its config.json"
        )
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, torch.Tensor)
    rows = embeddings.shape[0]
    if max(vocabulary.values()) >= rows:
        raise ModelError(
            f"{name}: the tokenizer has ids up to {max(vocabulary.values())}, but the model embeds {rows} tokens; "
            f"the tokenizer belongs to another model, put the right one beside config.json"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"{name}: the tokenizer has neither pad_token nor eos_token; set pad_token in tokenizer_config.json")
        tokenizer.pad_token = tokenizer.eos_token


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers and the hub's client: their reports become errors above, or about weights nobody asked for."""
    hub = logging.getLogger("huggingface_hub")
    verbosity, hub_level, bars = transformers_logging.get_verbosity(), hub.level, transformers_logging.is_progress_bar_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers_logging.set_verbosity(logging.CRITICAL)
            transformers_logging.disable_progress_bar()
            hub.setLevel(logging.CRITICAL)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
