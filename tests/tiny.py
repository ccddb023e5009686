"""Tiny random backbones and their tokenizer, built from code: real transformers classes, no download, same seed same weights.

A new backbone family needs one entry in `TINY`; the battery in tests/backbones fails with a word about it until it is there.
"""

from __future__ import annotations

from collections.abc import Callable
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
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

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
    backend = Tokenizer(WordPiece({token: index for index, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.normalizer = BertNormalizer(lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.decoder = WordPieceDecoder()
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
