from __future__ import annotations

import pytest
from tests.tiny import tiny_tokenizer
from transformers import PreTrainedTokenizerBase

from alter.data.codec import Codec
from alter.data.encode import Features, Scale, encode, scale_of
from alter.nn.losses import NOT_A_CLASS
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec

MOOD = TaskSpec(name="mood", labels=["bad", "good"])
STARS = TaskSpec(name="stars", kind="regression")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer("bert")


def texts(*given: str, label: str | float | None = None) -> list[Example]:
    return [Example(task="t", text=text, label=label) for text in given]


def encoded(examples: list[Example], tokenizer: PreTrainedTokenizerBase, **options: object) -> list[Features]:
    return encode(examples, MOOD, task_id=3, codec=Codec(tokenizer=tokenizer, max_length=16), **options)  # type: ignore[arg-type]


def test_a_row_becomes_token_ids_with_its_task_and_label(tokenizer: PreTrainedTokenizerBase) -> None:
    [features] = encoded(texts("the good day", label="good"), tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(features.inputs["input_ids"])) == ["[CLS]", "the", "good", "day", "[SEP]"]
    assert features.inputs["token_type_ids"] == [0] * 5
    assert (features.task_id, features.label_id, features.length, features.truncated) == (3, 1, 5, False)


def test_nothing_in_gives_nothing_out(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encoded([], tokenizer) == []


def test_only_texts_that_are_too_long_are_cut_and_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = encoded(texts("the good day", "day " * 14, "day " * 15, "the end"), tokenizer)
    assert [row.length for row in rows] == [5, 16, 16, len(rows[3].inputs["input_ids"])]
    assert [row.truncated for row in rows] == [False, False, True, False]
    assert rows[2].inputs["input_ids"][-1] == tokenizer.sep_token_id


def test_a_pair_is_cut_at_its_longer_part(tokenizer: PreTrainedTokenizerBase) -> None:
    [row] = encoded([Example(task="t", text="good", text_pair="day " * 30)], tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(row.inputs["input_ids"]))
    assert row.truncated
    assert tokens[:3] == ["[CLS]", "good", "[SEP]"]
    assert len(tokens) == 16
    assert row.inputs["token_type_ids"] == [0] * 3 + [1] * 13


def test_a_row_is_encoded_the_same_whatever_stands_beside_it(tokenizer: PreTrainedTokenizerBase) -> None:
    single = Example(task="t", text="good day")
    pair = Example(task="t", text="good", text_pair="day")
    long = Example(task="t", text="day " * 40)
    alone = [encoded([example], tokenizer)[0] for example in (single, pair, long)]
    assert encoded([single, pair, long], tokenizer) == alone
    assert encoded([long, pair, single], tokenizer) == alone[::-1]
    assert tokenizer.convert_ids_to_tokens(list(alone[0].inputs["input_ids"])).count("[SEP]") == 1


def test_a_label_that_is_not_the_task_s_has_no_id(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = encoded([*texts("a", label="odd"), *texts("a")], tokenizer)
    assert [row.label_id for row in rows] == [NOT_A_CLASS, NOT_A_CLASS]


def test_a_number_becomes_a_standardised_target(tokenizer: PreTrainedTokenizerBase) -> None:
    scale = Scale(mean=2.0, std=0.5)
    [row] = encode(texts("a", label=3.0), STARS, task_id=0, codec=Codec(tokenizer=tokenizer, max_length=8), scale=scale)
    assert (row.target, row.label_id) == (2.0, NOT_A_CLASS)
    [row] = encode(texts("a"), STARS, task_id=0, codec=Codec(tokenizer=tokenizer, max_length=8), scale=scale)
    assert row.target == 0.0


def test_a_scale_restores_what_it_standardised() -> None:
    scale = scale_of([*texts("a", label=1.0), *texts("b", label=4.0), *texts("c", label=7.0), *texts("d")])
    assert scale.mean == 4.0
    assert scale.std == pytest.approx(6**0.5)
    assert scale.restore(scale.standardise(5.5)) == pytest.approx(5.5)


def test_equal_numbers_everywhere_have_scale_one() -> None:
    assert scale_of(texts("a", "b", label=3.0)) == Scale(mean=3.0, std=1.0)
