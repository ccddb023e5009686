"""The passes of an equipped model that writes: what its stock model is given beside the rows, and what its gates may see of them.

    encoder-decoder    the encoder reads the input; the decoder the labels, one place to the right
    decoder-only       one stack reads input and answer; gates by row see the prompt alone; rows may share a sequence (packing)

Shapes: B rows, S tokens, T tokens to write, V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from alter.errors import ModelError
from alter.nn.equipped import Equipped
from alter.nn.losses import NOT_A_CLASS
from alter.nn.packing import Packing
from alter.nn.routing import Route
from alter.nn.site import projection_weight
from alter.nn.tokens import mean_over_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def two_stacks(
    model: Equipped,
    input_ids: torch.Tensor | None,
    mask_BS: torch.Tensor | None,
    task_ids: torch.Tensor,
    labels_BT: torch.Tensor | None,
    given: dict[str, Any],
) -> torch.Tensor:
    """Run an encoder-decoder on rows, of which the decoder reads the labels so far; return logits of each next token, (B, T, V)."""
    if labels_BT is not None and "decoder_input_ids" not in given:
        given = {**given, "decoder_input_ids": _shifted(model.backbone, labels_BT)}
    with model.routed(Route(task_ids_B=task_ids, mask_BS=mask_BS)):
        if (outputs := given.get("encoder_outputs")) is not None:
            model.state.encoder_BD = mean_over_tokens(outputs[0], mask_BS)
        logits = model.backbone(input_ids=input_ids, attention_mask=mask_BS, use_cache=False, **given).logits
    assert isinstance(logits, torch.Tensor)
    return logits


def _shifted(backbone: PreTrainedModel, labels_BT: torch.Tensor) -> torch.Tensor:
    """Return what the decoder reads to write these labels."""
    shift: Any = backbone.prepare_decoder_input_ids_from_labels
    try:
        shifted = shift(labels=labels_BT)
    except (TypeError, ValueError):  # what transformers' own functions raise for a token that is None
        config = backbone.config
        seen = {name: getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id")}
        if None not in seen.values():
            raise
        raise ModelError(
            f"this {type(backbone).__name__}'s config does not say what its decoder begins with and is padded with ({seen}); set "
            f"both in its config.json, e.g. decoder_start_token_id to the id of the token that stands before every text"
        ) from None
    assert isinstance(shifted, torch.Tensor)
    return shifted


def one_stack(
    model: Equipped,
    input_ids: torch.Tensor | None,
    mask_BS: torch.Tensor | None,
    task_ids: torch.Tensor,
    labels_BT: torch.Tensor | None,
    packing: Packing | None,
    given: dict[str, Any],
) -> torch.Tensor:
    """Run a decoder-only model on rows that hold prompt and labels alike; return logits of each next token, (B, T, V)."""
    prompt_BS = mask_BS
    if labels_BT is not None:
        prompt_BS = labels_BT == NOT_A_CLASS if mask_BS is None else (labels_BT == NOT_A_CLASS) & (mask_BS != 0)
    mask: torch.Tensor | dict[str, torch.Tensor] | None
    takes = inspect.signature(model.backbone.forward).parameters
    takes_positions = "position_ids" in takes
    if "logits_to_keep" not in takes or packing is not None:
        given = {name: value for name, value in given.items() if name != "logits_to_keep"}
    if packing is not None:
        assert input_ids is not None
        if not takes_positions:
            raise ModelError(
                f"rows cannot be packed for a {type(model.backbone).__name__}: it takes no position_ids; set train.packing: false"
            )
        dtype = projection_weight(model.ffns[-1].down).dtype if model.ffns else model.backbone.dtype
        mask, input_ids = _packed_mask(packing, dtype, model.backbone.config), packing.pack(input_ids)
        given = {**given, "position_ids": packing.position_ids()}
    else:
        mask = mask_BS
        if takes_positions and mask_BS is not None and "position_ids" not in given:  # padding on the left shifts nobody
            given = {**given, "position_ids": (mask_BS.long().cumsum(-1) - 1).clamp_min(0)}
    with model.routed(Route(task_ids_B=task_ids, mask_BS=prompt_BS, packing=packing)):
        logits = model.backbone(input_ids=input_ids, attention_mask=mask, use_cache=False, **given).logits
    assert isinstance(logits, torch.Tensor)
    return logits if packing is None else packing.unpack(logits)


def _packed_mask(packing: Packing, dtype: torch.dtype, config: Any) -> torch.Tensor | dict[str, torch.Tensor]:
    """Return the attention mask of packed rows: transformers takes a ready one as it is, so sliding windows must be in it."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if other := sorted(kinds - {"full_attention", "sliding_attention"}):
        raise ModelError(
            f"rows cannot be packed for a '{config.model_type}' model: its layers of the kind {', '.join(other)} would mix them; set "
            f"train.packing: false"
        )
    if "sliding_attention" in kinds:  # one mask for each kind of layer
        return {kind: packing.attention_mask(dtype, window=window if kind == "sliding_attention" else None) for kind in kinds}
    return packing.attention_mask(dtype, window=None if kinds else window)
