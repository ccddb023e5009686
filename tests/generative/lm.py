"""Tiny equipped models that write text, and a batch of mixed tasks, for the batteries of generation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.nn.equipped import randomise
from tests.tiny import EOS, GENERATIVE, PAD, tiny_lm, tiny_lm_tokenizer
from transformers import PreTrainedModel

from alter.config import merge, parse
from alter.data.batch import Batch, collate
from alter.data.codec import Codec
from alter.data.encode import Features
from alter.model import MTAModel, MTAOutput
from alter.mta_settings import MTASettings
from alter.nn.losses import NOT_A_CLASS
from alter.nn.routing import Router
from alter.nn.site import Kind
from alter.presets import PRESETS

NAMES = ("mood", "say", "topic")
ENCODER_DECODERS = [name for name, variant in GENERATIVE.items() if variant.kind == "encoder-decoder"]
DECODERS = [name for name, variant in GENERATIVE.items() if variant.kind == "decoder"]
PACKABLE = [name for name in DECODERS if name != "bloom"]
"""Decoders that can be told a token's position; bloom knows distances only and counts them itself."""
CHOSEN = ("t5", "t5_v1_1", "bart", "gpt2", "llama", "opt", "encoder_decoder")
"""Where every gate kind is tried: both kinds of model, both forms of FFN, all ways in which blocks call them."""
OVERFLOWS = frozenset({"bloom", "gemma2"})
"""Their own (eager) attention masks with the least number of the model's type and takes the softmax in float32, where float64's least
number is minus infinity: a token of padding that may look at no token at all becomes NaN. So these two are tried in float32."""

# Every gate kind, laid over the preset `alter-lite`. Those that know owners only weigh no shared adapters.
GATES: dict[str, dict[str, Any]] = {
    "task": {"gate": {"kind": "task", "over": "all"}},
    "task_shared": {"gate": {"kind": "task", "over": "shared"}},
    "linear_sequence": {"gate": {"kind": "linear", "over": "all"}},
    "linear_sequence_shared": {"gate": {"kind": "linear", "over": "shared"}},
    "linear_token": {"gate": {"kind": "linear", "over": "all", "granularity": "token"}},
    "outputs": {"gate": {"kind": "outputs"}},
    "uniform": {"gate": {"kind": "uniform"}},
    "one_hot": {"gate": {"kind": "one_hot"}, "num_shared": 0},
    "selector": {"gate": {"kind": "selector"}, "num_shared": 0},
    "taps": {"gate": {"kind": "taps"}, "num_shared": 0},
    "table": {"gate": {"kind": "table"}},
}
BY_ROW = ("linear_sequence", "outputs")
"""Gates that read the row: what they see of it must not depend on the answer."""
SELECTORS: dict[str, dict[str, Any]] = {
    "one_hot": {"kind": "one_hot"},
    "selector": {"kind": "selector"},
    "task": {"kind": "task"},
    "linear_sequence": {"kind": "linear"},
    "linear_token": {"kind": "linear", "granularity": "token"},
    "uniform": {"kind": "uniform"},
    "taps": {"kind": "taps"},
    "table": {"kind": "table"},
}

# Three lengths, every task; inputs of encoder-decoders end with their end token, as tokenizers have it. Some rows are longer than the
# sliding window of the Gemmas (8).
PROMPTS = [[131, 10, 11, 12, 13, 14, 15, 16, 17, 18], [152, 20, 21], [40, 41, 42, 43, 44, 45], [7], [60, 61, 62, 63, 64]]
ANSWERS = [[30, 31, EOS], [70, 71, 72, 73, 74, EOS], [80, EOS], [33, 34, 35, EOS], [90, 91, 92, EOS]]
TASKS = [0, 1, 2, 1, 0]

every_variant = pytest.mark.parametrize("name", GENERATIVE)
every_decoder = pytest.mark.parametrize("name", DECODERS)
every_encoder_decoder = pytest.mark.parametrize("name", ENCODER_DECODERS)
every_pair = pytest.mark.parametrize(
    ("preset", "name"), [*(("alter-lite", name) for name in GENERATIVE), *(("alter", name) for name in CHOSEN)]
)
"""All variants under the default preset, some under the other: for what costs time."""
both_presets = pytest.mark.parametrize("preset", sorted(PRESETS))


def dtype_of(name: str) -> torch.dtype:
    """Return the type in which a variant is tried."""
    return torch.float32 if name in OVERFLOWS else torch.float64


def near(name: str) -> dict[str, float]:
    """Return how near two ways to the same numbers must be in that type."""
    return {"rtol": 0, "atol": 1e-4 if name in OVERFLOWS else 1e-9}


@functools.cache
def _base(name: str, num_layers: int) -> PreTrainedModel:
    return tiny_lm(name, num_layers=num_layers)


def base_lm(name: str, *, dtype: torch.dtype | None = None, num_layers: int = 2) -> PreTrainedModel:
    """Return a fresh tiny model, the same each time."""
    return copy.deepcopy(_base(name, num_layers)).to(dtype or dtype_of(name))


def equipped_lm(
    name: str,
    mta: Mapping[str, Any] | None = None,
    *,
    preset: str = "alter-lite",
    router: Router = "gate",
    dtype: torch.dtype | None = None,
    num_layers: int = 2,
) -> MTAModel:
    """Return a tiny model with an MTA at its start, in evaluation mode."""
    base = base_lm(name, dtype=dtype, num_layers=num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = parse(MTASettings, merge(PRESETS[preset]["mta"], mta or {}), where="test")
        model = MTAModel(base, task_names=NAMES, settings=settings)
    model.to(dtype or dtype_of(name)).eval()
    model.router = router
    return model


def trained_lm(name: str, mta: Mapping[str, Any] | None = None, **more: Any) -> MTAModel:
    """Return an equipped model whose adapters, selectors and gates all changed, as after training."""
    return randomise(equipped_lm(name, mta, **more), "task_adapters", "shared_adapters", "selector", "gate")


@functools.cache
def codec_of(kind: Kind) -> Codec:
    """Return the way with text of the tiny models of one kind."""
    return Codec(tokenizer=tiny_lm_tokenizer(kind), kind=kind, max_length=64, max_target_length=12)


def rows_for(kind: Kind, *, answers: Sequence[Sequence[int]] = ANSWERS) -> list[Features]:
    """Return the rows of the batch, with these answers."""
    end = [EOS] if kind == "encoder-decoder" else []
    return [
        Features(task_id=task, inputs={"input_ids": [*prompt, *end]}, target_ids=list(answer))
        for task, prompt, answer in zip(TASKS, PROMPTS, answers, strict=True)
    ]


def batch_for(kind: Kind, rows: Sequence[Features] | None = None, **how: Any) -> Batch:
    """Pad rows, by default the five of `rows_for`."""
    return collate(rows_for(kind) if rows is None else rows, codec_of(kind), **how)


def run(model: MTAModel, batch: Batch | None = None, **more: Any) -> MTAOutput:
    """Run a batch, by default the five rows with their answers."""
    batch = batch_for(model.kind) if batch is None else batch
    output: MTAOutput = model(**batch.inputs, task_ids=batch.task_ids_B, **{**batch.supervised, **more})
    return output


def logits(model: MTAModel, batch: Batch | None = None) -> torch.Tensor:
    """Return the logits of a batch, without a graph."""
    with torch.no_grad():
        found = run(model, batch, logits_to_keep=0).logits  # 0: all of them
    assert found is not None
    return found


def tokens(kind: Kind) -> torch.Tensor:
    """Return where the five rows have tokens rather than padding: nothing reads what a decoder makes of padding."""
    batch = batch_for(kind)
    if kind == "decoder":
        return batch.inputs["attention_mask"].bool()
    assert batch.labels_BT is not None
    return batch.labels_BT != NOT_A_CLASS


def stock_logits(model: PreTrainedModel) -> torch.Tensor:
    """Return what a stock model makes of the five rows and their answers."""
    is_pair = model.config.is_encoder_decoder
    batch = batch_for("encoder-decoder" if is_pair else "decoder")
    more: dict[str, Any] = {}
    if is_pair:
        shift: Any = model.prepare_decoder_input_ids_from_labels
        more = {"decoder_input_ids": shift(labels=batch.labels_BT)}
    with torch.no_grad():
        found = model(**batch.inputs, use_cache=False, **more).logits
    assert isinstance(found, torch.Tensor)
    return found


def write(model: MTAModel, rows: Sequence[Features], *, num_tokens: int = 4, **settings: Any) -> Any:
    """Let the model write `num_tokens` tokens to each row; with the logits of every step."""
    prompt = batch_for(model.kind, rows, prompts=True)
    return model.generate(
        prompt.inputs["input_ids"],
        prompt.inputs["attention_mask"],
        task_ids=prompt.task_ids_B,
        **{
            "do_sample": False,
            "max_new_tokens": num_tokens,
            "min_new_tokens": num_tokens,
            "return_dict_in_generate": True,
            "output_logits": True,
            "output_scores": True,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            **settings,
        },
    )


def answers_in(model: MTAModel, rows: Sequence[Features], sequences: torch.Tensor) -> list[list[int]]:
    """Return what was written: without the prompt, or the token that the decoder starts with."""
    begin = max(len(row.inputs["input_ids"]) for row in rows) if model.kind == "decoder" else 1
    found: list[list[int]] = sequences[:, begin:].tolist()
    return found


def teacher_forced(model: MTAModel, rows: Sequence[Features], answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the logits of each answer's tokens, (B, T, V): the whole answer in one pass, no cache."""
    with_answers = [replace(row, target_ids=list(answer)) for row, answer in zip(rows, answers, strict=True)]
    found = logits(model, batch_for(model.kind, with_answers))
    if model.kind == "encoder-decoder":
        return found
    num_tokens = len(answers[0])
    starts = [len(row.inputs["input_ids"]) - 1 for row in rows]
    return torch.stack([found[row, start : start + num_tokens] for row, start in enumerate(starts)])
