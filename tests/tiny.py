"""Tiny random backbones and their tokenizer, built from code: real transformers classes, no download, same seed same weights.

A new backbone family needs one entry: in `TINY` if its models are encoders, in `GENERATIVE` if they write text. The batteries in
tests/backbones fail with a word about it until it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from alter.nn.site import Kind

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PUNCTUATION = ".,:;!?'\"-()/&%$#@+*=_<>[]{}|~^`\\"
WORDS = """
the a an and or not is are was be to of in on for with from this that it you we
they good bad great poor love hate yes no more less fast slow new old open close pay bill card bank refund
order late early help please thanks error crash login account price cheap happy angry red blue green one two three up down
left right start stop day night ##s ##ed ##ing ##er ##ly
"""
VOCABULARY = list(
    dict.fromkeys([*SPECIAL_TOKENS, *CHARACTERS, *(f"##{char}" for char in CHARACTERS), *PUNCTUATION, *WORDS.split()])
)
VOCAB_SIZE = 200

HIDDEN_SIZE, INTERMEDIATE_SIZE, NUM_HEADS, MAX_POSITIONS = 32, 64, 4, 160

Settings = dict[str, Any]


def _bert_like(dropout: float, num_layers: int, activation: str) -> Settings:
    return {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": num_layers,
        "num_attention_heads": NUM_HEADS,
        "hidden_act": activation,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def _electra(dropout: float, num_layers: int, activation: str) -> Settings:
    return {**_bert_like(dropout, num_layers, activation), "embedding_size": 16}


def _deberta_v2(dropout: float, num_layers: int, activation: str) -> Settings:
    # As DeBERTa v3 is published: disentangled attention, shared keys, no absolute positions, no token types.
    return {
        **_bert_like(dropout, num_layers, activation),
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_hidden_size": HIDDEN_SIZE,
    }


def _distilbert(dropout: float, num_layers: int, activation: str) -> Settings:
    return {
        "dim": HIDDEN_SIZE,
        "hidden_dim": INTERMEDIATE_SIZE,
        "n_layers": num_layers,
        "n_heads": NUM_HEADS,
        "activation": activation,
        "dropout": dropout,
        "attention_dropout": dropout,
    }


def _modernbert(dropout: float, num_layers: int, activation: str) -> Settings:
    return {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": num_layers,
        "num_attention_heads": NUM_HEADS,
        "hidden_activation": activation,
        "mlp_dropout": dropout,
        "attention_dropout": dropout,
        "embedding_dropout": dropout,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 2,
    }


# family -> (config class of the family's first model type, its settings, whether its models read token_type_ids)
TINY: dict[str, tuple[str, Callable[[float, int, str], Settings], bool]] = {
    "bert": ("BertConfig", _bert_like, True),
    "deberta_v2": ("DebertaV2Config", _deberta_v2, True),
    "distilbert": ("DistilBertConfig", _distilbert, False),
    "electra": ("ElectraConfig", _electra, True),
    "modernbert": ("ModernBertConfig", _modernbert, False),
    "roberta": ("RobertaConfig", _bert_like, False),
}
# The further model types of a family that covers several.
TWINS = {"xlm-roberta": "XLMRobertaConfig", "camembert": "CamembertConfig"}

FAMILY_NAMES = tuple(sorted(TINY))


def tiny_config(
    family: str, *, dropout: float = 0.0, num_layers: int = 2, activation: str = "gelu", model_type: str | None = None
) -> PreTrainedConfig:
    """Return a tiny config of `family`; `model_type` chooses among several that the family covers (default: its first)."""
    if family not in TINY:
        raise LookupError(f"tests/tiny.py has no tiny config for the family '{family}'; add an entry to TINY there")
    class_name, settings, _ = TINY[family]
    config_class = getattr(transformers, TWINS.get(model_type or "", class_name))
    if model_type is not None and config_class.model_type != model_type:
        raise LookupError(f"tests/tiny.py has no tiny config for the model type '{model_type}'; add it to TWINS there")
    given = {"max_position_embeddings": MAX_POSITIONS, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = config_class(vocab_size=VOCAB_SIZE, **given, **settings(dropout, num_layers, activation))
    assert isinstance(config, PreTrainedConfig)
    return config


def tiny_model(family: str, *, seed: int = 0, dropout: float = 0.0, num_layers: int = 2) -> PreTrainedModel:
    """Return a tiny bare model in evaluation mode; the process's own random state is left as it was."""
    return seeded(AutoModel, tiny_config(family, dropout=dropout, num_layers=num_layers), seed=seed)


def seeded(auto_class: Any, config: PreTrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """Build a model, e.g. with a head (`AutoModelForSequenceClassification`), from `config` and `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class.from_config(config)
    assert isinstance(model, PreTrainedModel)
    model.train(mode=False)
    return model


def tiny_tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer that can spell any ASCII text; token_type_ids where the family reads them."""
    backend = _word_pieces()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    reads_types = TINY[family][2]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", *(["token_type_ids"] if reads_types else []), "attention_mask"],
    )


def save_tiny(folder: str | Path, family: str = "bert", *, seed: int = 0, dropout: float = 0.0, num_layers: int = 2) -> Path:
    """Write a complete base folder (config.json, model.safetensors, tokenizer files) and return its path."""
    path = Path(folder)
    tiny_model(family, seed=seed, dropout=dropout, num_layers=num_layers).save_pretrained(path)
    tiny_tokenizer(family).save_pretrained(path)
    return path


def _word_pieces() -> Tokenizer:
    backend = Tokenizer(WordPiece({token: index for index, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.normalizer = BertNormalizer(lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.decoder = WordPieceDecoder()
    return backend


# Models that write text: with a language-model head, an encoder and a decoder or a decoder alone.

PAD, BOS, EOS = 0, 2, 3


def _t5(dropout: float, num_layers: int) -> Settings:
    return {
        "d_model": HIDDEN_SIZE,
        "d_kv": HIDDEN_SIZE // NUM_HEADS,
        "d_ff": INTERMEDIATE_SIZE,
        "num_layers": num_layers,
        "num_heads": NUM_HEADS,
        "relative_attention_num_buckets": 8,
        "dropout_rate": dropout,
        "decoder_start_token_id": PAD,
    }


def _gated_t5(dropout: float, num_layers: int) -> Settings:
    # As T5 v1.1, Flan-T5 and mT5 are published: gated, and the head's weights are not the embeddings'.
    return {**_t5(dropout, num_layers), "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def _bart_like(dropout: float, num_layers: int) -> Settings:
    return {
        "d_model": HIDDEN_SIZE,
        **{f"{stack}_layers": num_layers for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": INTERMEDIATE_SIZE for stack in ("encoder", "decoder")},
        **{f"{stack}_attention_heads": NUM_HEADS for stack in ("encoder", "decoder")},
        "max_position_embeddings": MAX_POSITIONS,
        "dropout": dropout,
        "attention_dropout": dropout,
        "activation_dropout": dropout,
        "decoder_start_token_id": EOS,
        "forced_eos_token_id": EOS,
    }


def _gpt2(dropout: float, num_layers: int) -> Settings:
    return {
        "n_embd": HIDDEN_SIZE,
        "n_inner": INTERMEDIATE_SIZE,
        "n_layer": num_layers,
        "n_head": NUM_HEADS,
        "n_positions": MAX_POSITIONS,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout),
    }


def _opt(dropout: float, num_layers: int) -> Settings:
    return {
        "hidden_size": HIDDEN_SIZE,
        "ffn_dim": INTERMEDIATE_SIZE,
        "num_hidden_layers": num_layers,
        "num_attention_heads": NUM_HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "dropout": dropout,
        "attention_dropout": dropout,
    }


def _opt_350m(dropout: float, num_layers: int) -> Settings:
    # The one OPT with norms after the sub-layers and narrower embeddings.
    return {**_opt(dropout, num_layers), "do_layer_norm_before": False, "word_embed_proj_dim": HIDDEN_SIZE // 2}


def _bloom(dropout: float, num_layers: int) -> Settings:
    return {
        "hidden_size": HIDDEN_SIZE,
        "n_layer": num_layers,
        "n_head": NUM_HEADS,
        "hidden_dropout": dropout,
        "attention_dropout": dropout,
    }


def _llama_like(dropout: float, num_layers: int) -> Settings:
    return {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": num_layers,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": NUM_HEADS // 2,
        "head_dim": HIDDEN_SIZE // NUM_HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "attention_dropout": dropout,
    }


def _qwen2(dropout: float, num_layers: int) -> Settings:
    return {key: value for key, value in _llama_like(dropout, num_layers).items() if key != "head_dim"}


def _gemma(dropout: float, num_layers: int) -> Settings:
    kinds = ["sliding_attention", "full_attention"] * num_layers
    return {**_llama_like(dropout, num_layers), "sliding_window": 8, "layer_types": kinds[:num_layers]}


def _gpt_neox(dropout: float, num_layers: int) -> Settings:
    settings = {**_qwen2(dropout, num_layers), "hidden_dropout": dropout}
    del settings["num_key_value_heads"]
    return settings


def _phi(dropout: float, num_layers: int) -> Settings:
    return {**_qwen2(dropout, num_layers), "resid_pdrop": dropout, "embd_pdrop": dropout}


def _two_berts(dropout: float, num_layers: int) -> Settings:
    """Return settings of two BERTs of different widths: the model has a projection between them."""
    narrow = {"hidden_size": HIDDEN_SIZE // 2, "intermediate_size": INTERMEDIATE_SIZE // 2}
    roles: dict[str, Settings] = {"encoder": narrow, "decoder": {"is_decoder": True, "add_cross_attention": True}}
    ids = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": MAX_POSITIONS, "pad_token_id": PAD}
    berts = {
        role: transformers.BertConfig(**ids, **{**_bert_like(dropout, num_layers, "gelu"), **own}) for role, own in roles.items()
    }
    return {**berts, "decoder_start_token_id": BOS}


@dataclass(frozen=True)
class TinyLM:
    """One variant of a model that writes text.

    Attributes:
        kind: whether it has an encoder beside its decoder.
        family: the file in alter/backbones that covers it.
        config: name of its config class.
        settings: (dropout, number of layers per stack) -> the config's arguments.
        form: the form of its FFNs.
    """

    kind: Kind
    family: str
    config: str
    settings: Callable[[float, int], Settings]
    form: str = "plain"


GENERATIVE: dict[str, TinyLM] = {
    "bart": TinyLM("encoder-decoder", "bart", "BartConfig", _bart_like),
    "bloom": TinyLM("decoder", "bloom", "BloomConfig", _bloom),
    "encoder_decoder": TinyLM("encoder-decoder", "encoder_decoder", "EncoderDecoderConfig", _two_berts),
    "gemma2": TinyLM("decoder", "gemma2", "Gemma2Config", _gemma, "gated"),
    "gemma3": TinyLM("decoder", "gemma3", "Gemma3TextConfig", _gemma, "gated"),
    "gpt2": TinyLM("decoder", "gpt2", "GPT2Config", _gpt2),
    "gpt_neox": TinyLM("decoder", "gpt_neox", "GPTNeoXConfig", _gpt_neox),
    "llama": TinyLM("decoder", "llama", "LlamaConfig", _llama_like, "gated"),
    "marian": TinyLM("encoder-decoder", "marian", "MarianConfig", _bart_like),
    "mbart": TinyLM("encoder-decoder", "mbart", "MBartConfig", _bart_like),
    "mt5": TinyLM("encoder-decoder", "t5", "MT5Config", _gated_t5, "gated"),
    "olmo2": TinyLM("decoder", "olmo2", "Olmo2Config", _qwen2, "gated"),
    "opt": TinyLM("decoder", "opt", "OPTConfig", _opt),
    "opt_350m": TinyLM("decoder", "opt", "OPTConfig", _opt_350m),
    "pegasus": TinyLM("encoder-decoder", "pegasus", "PegasusConfig", _bart_like),
    "phi": TinyLM("decoder", "phi", "PhiConfig", _phi),
    "qwen2": TinyLM("decoder", "qwen2", "Qwen2Config", _qwen2, "gated"),
    "qwen3": TinyLM("decoder", "qwen3", "Qwen3Config", _llama_like, "gated"),
    "t5": TinyLM("encoder-decoder", "t5", "T5Config", _t5),
    "t5_v1_1": TinyLM("encoder-decoder", "t5", "T5Config", _gated_t5, "gated"),
}


def tiny_lm_config(name: str, *, dropout: float = 0.0, num_layers: int = 2) -> PreTrainedConfig:
    """Return the tiny config of a variant in `GENERATIVE`."""
    if name not in GENERATIVE:
        raise LookupError(f"tests/tiny.py has no tiny config for '{name}'; add an entry to GENERATIVE there")
    variant = GENERATIVE[name]
    settings = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, **variant.settings(dropout, num_layers)}
    if variant.config != "EncoderDecoderConfig":
        settings["vocab_size"] = VOCAB_SIZE
    config = getattr(transformers, variant.config)(**settings)
    assert isinstance(config, PreTrainedConfig)
    return config


def tiny_lm(name: str, *, seed: int = 0, dropout: float = 0.0, num_layers: int = 2) -> PreTrainedModel:
    """Return a tiny model with its language-model head, in evaluation mode; `num_layers` counts those of one stack."""
    config = tiny_lm_config(name, dropout=dropout, num_layers=num_layers)
    heads = {"encoder-decoder": AutoModelForSeq2SeqLM, "decoder": AutoModelForCausalLM}
    return seeded(heads[GENERATIVE[name].kind], config, seed=seed)


def tiny_lm_tokenizer(kind: Kind) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the models of one kind: encoder-decoders read a closing [SEP], decoders no special tokens.

    It pads on the right, as tokenizers do unless they are told otherwise.
    """
    backend = _word_pieces()
    if kind == "encoder-decoder":
        backend.post_processor = TemplateProcessing(single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", EOS)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
    )


def _qwen2_tokenizer() -> Qwen2Tokenizer:
    """Return a byte-level tokenizer that spells every word: transformers reads any tokenizer beside a Qwen2 model as such a one."""
    letters = [*SPECIAL_TOKENS, *CHARACTERS, *CHARACTERS[:26].upper(), *PUNCTUATION, "\u0120", "\u010a"]
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    return Qwen2Tokenizer(
        vocab={letter: index for index, letter in enumerate(letters)}, merges=[], model_max_length=128, **special
    )


def save_tiny_lm(folder: str | Path, name: str, *, seed: int = 0, dropout: float = 0.0, num_layers: int = 2) -> Path:
    """Write a complete base folder (config.json, model.safetensors, tokenizer files) and return its path."""
    path = Path(folder)
    tiny_lm(name, seed=seed, dropout=dropout, num_layers=num_layers).save_pretrained(path)
    tokenizer = _qwen2_tokenizer() if name == "qwen2" else tiny_lm_tokenizer(GENERATIVE[name].kind)
    tokenizer.save_pretrained(path)
    return path
