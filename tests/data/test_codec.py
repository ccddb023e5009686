"""What a base model reads and what it must write, id by id."""

from __future__ import annotations

from typing import Any

import pytest
from tests.tiny import BOS, EOS, PAD, tiny_lm_tokenizer, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alter.data.batch import collate
from alter.data.codec import Codec
from alter.data.encode import Features, encode
from alter.errors import DataError, ModelError
from alter.nn.losses import NOT_A_CLASS
from alter.nn.site import Kind
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec

LANGUAGE = 4
SUMMARY = TaskSpec(name="summary", kind="generation")
MOOD = TaskSpec(name="mood", labels=["bad", "good"], target="it is {{ label }}")
STARS = TaskSpec(name="stars", kind="regression")
TURNS = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TEMPLATE = TURNS + "[CLS] {{ m.role }} : {{ m.content }} {% endfor %}{% if add_generation_prompt %}[CLS] you :{% endif %}"


def codec(kind: Kind, tokenizer: PreTrainedTokenizerBase | None = None, **settings: Any) -> Codec:
    """Return a codec; its separator is a colon, for the tiny tokenizers see no white space."""
    return Codec(kind=kind, tokenizer=tokenizer or tiny_lm_tokenizer(kind), **{"separator": ":", **settings})


def framed(single: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that puts its special tokens around a text as `single` says."""
    tokenizer = tiny_lm_tokenizer("decoder")
    special = [("[CLS]", BOS), ("[SEP]", EOS), ("[MASK]", LANGUAGE)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, pair=f"{single} $B:1", special_tokens=special)
    return tokenizer


def ids(*words: str) -> list[int]:
    return [tiny_lm_tokenizer("decoder").get_vocab()[word] for word in words]


def row(text: str, label: str | float | None = None, **settings: Any) -> Example:
    return Example(task="summary", text=text, label=label, **settings)


def encoded(given: Codec, *examples: Example, spec: TaskSpec = SUMMARY) -> list[Features]:
    return encode(list(examples), spec, task_id=0, codec=given)


class TestTwoStacks:
    def test_the_input_and_the_target_are_framed_by_the_tokenizer(self) -> None:
        [found] = encoded(codec("encoder-decoder"), row("the good day", "bad night"))
        assert found.inputs == {"input_ids": [*ids("the", "good", "day"), EOS]}
        assert found.target_ids == [*ids("bad", "night"), EOS]
        assert (found.length, found.truncated, found.target_truncated) == (7, False, False)

    def test_a_pair_is_one_text(self) -> None:
        [found] = encoded(codec("encoder-decoder"), row("good day", text_pair="bad night"))
        assert found.inputs["input_ids"] == [*ids("good", "day", "bad", "night"), EOS]
        assert found.target_ids == []

    def test_what_is_too_long_is_cut_before_its_end(self) -> None:
        given = codec("encoder-decoder", max_length=3, max_target_length=4)
        short, long = encoded(given, row("good day", "one two three"), row("good day and night", "one two three up"))
        assert (short.truncated, short.target_truncated) == (False, False)
        assert (long.truncated, long.target_truncated) == (True, True)
        assert long.inputs["input_ids"] == [*ids("good", "day"), EOS]
        assert long.target_ids == short.target_ids == [*ids("one", "two", "three"), EOS]

    def test_the_loss_counts_the_target_and_no_padding(self) -> None:
        given = codec("encoder-decoder")
        batch = collate(encoded(given, row("good day", "one"), row("bad", "one two three")), given)
        assert batch.inputs["input_ids"].tolist() == [[*ids("good", "day"), EOS], [*ids("bad"), EOS, PAD]]
        assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
        assert batch.labels_BT is not None
        assert batch.labels_BT.tolist() == [
            [*ids("one"), EOS, NOT_A_CLASS, NOT_A_CLASS],
            [*ids("one", "two", "three"), EOS],
        ]

    def test_prompts_hold_no_target(self) -> None:
        given = codec("encoder-decoder")
        batch = collate(encoded(given, row("good day", "one"), row("bad", "one")), given, prompts=True)
        assert batch.inputs["input_ids"].tolist() == [[*ids("good", "day"), EOS], [*ids("bad"), EOS, PAD]]
        assert batch.labels_BT is None

    def test_labels_and_numbers_are_written_by_the_task_s_template(self) -> None:
        given = codec("encoder-decoder")
        [mood] = encoded(given, row("day", "good"), spec=MOOD)
        [stars] = encoded(given, row("day", 3.0), spec=STARS)
        assert mood.target_ids == [*ids("it", "is", "good"), EOS]
        assert stars.target_ids == [*ids("3"), EOS]

    def test_bart_s_targets_have_a_beginning_too(self) -> None:
        given = codec("encoder-decoder", framed("[CLS] $A [SEP]"), max_target_length=4)
        assert given.targets(["good day", "one two three"]) == (
            [[BOS, *ids("good", "day"), EOS], [BOS, *ids("one", "two"), EOS]],
            [False, True],
        )
        assert given.start_id == EOS

    def test_mbart_s_targets_have_their_language_behind_the_end(self) -> None:
        given = codec("encoder-decoder", framed("$A [SEP] [MASK]"), max_target_length=4)
        assert given.targets(["good day", "one two three"]) == (
            [[*ids("good", "day"), EOS, LANGUAGE], [*ids("one", "two"), EOS, LANGUAGE]],
            [False, True],
        )
        assert given.start_id == LANGUAGE
        assert given.text([*ids("good", "day"), EOS, LANGUAGE]) == "good day"

    def test_a_tokenizer_that_closes_no_text_gets_the_end_once_and_within_the_limit(self) -> None:
        given = codec("encoder-decoder", tiny_lm_tokenizer("decoder"), max_target_length=3)
        assert given.targets(["good day", "one two three up"]) == (
            [[*ids("good", "day"), EOS], [*ids("one", "two"), EOS]],
            [False, True],
        )

    def test_the_separator_of_berts_is_the_end_where_there_is_no_other(self) -> None:
        tokenizer = tiny_tokenizer("distilbert")
        assert tokenizer.eos_token_id is None
        given = codec("encoder-decoder", tokenizer)
        assert given.end_id == EOS
        assert given.targets(["good"])[0] == [[BOS, *ids("good"), EOS]]

    def test_what_is_written_may_have_its_own_tokenizer(self) -> None:
        target_tokenizer = framed("[CLS] $A [SEP]")
        given = codec("encoder-decoder", target_tokenizer=target_tokenizer)
        assert given.writer is target_tokenizer
        [found] = encoded(given, row("good day", "good day"))
        assert found.inputs["input_ids"] == [*ids("good", "day"), EOS]
        assert found.target_ids == [BOS, *ids("good", "day"), EOS]


class TestOneStack:
    def test_input_separator_and_target_are_one_sequence(self) -> None:
        given = codec("decoder")
        [found] = encoded(given, row("the good day", "bad night"))
        assert found.inputs["input_ids"] == ids("the", "good", "day", ":")
        assert found.target_ids == [*ids("bad", "night"), EOS]
        batch = collate([found], given)
        assert batch.inputs["input_ids"].tolist() == [[*ids("the", "good", "day", ":", "bad", "night"), EOS]]

    def test_the_loss_counts_the_target_alone(self) -> None:
        given = codec("decoder")
        batch = collate(encoded(given, row("good day", "one"), row("bad", "one two three")), given)
        none = NOT_A_CLASS
        assert batch.inputs["input_ids"].tolist() == [
            [*ids("good", "day", ":", "one"), EOS, PAD],
            [*ids("bad", ":", "one", "two", "three"), EOS],
        ]
        assert batch.labels_BT is not None
        assert batch.labels_BT.tolist() == [
            [none, none, none, *ids("one"), EOS, none],
            [none, none, *ids("one", "two", "three"), EOS],
        ]
        assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]

    def test_rows_without_a_target_have_a_prompt_and_nothing_to_learn(self) -> None:
        given = codec("decoder")
        [found] = encoded(given, row("good"))
        assert (found.inputs["input_ids"], list(found.target_ids)) == (ids("good", ":"), [])

    def test_prompts_end_where_all_rows_end(self) -> None:
        given = codec("decoder")
        batch = collate(encoded(given, row("good day", "one"), row("bad", "one")), given, prompts=True)
        assert batch.inputs["input_ids"].tolist() == [ids("good", "day", ":"), [PAD, *ids("bad", ":")]]
        assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
        assert batch.labels_BT is None

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_the_tokenizer_s_padding_side_does_not_decide(self, side: str) -> None:
        tokenizer = tiny_lm_tokenizer("decoder")
        tokenizer.padding_side = side
        given = codec("decoder", tokenizer)
        rows = encoded(given, row("good day", "one"), row("bad", "one"))
        assert collate(rows, given, prompts=True).inputs["input_ids"].tolist()[1] == [PAD, *ids("bad", ":")]
        assert collate(rows, given).inputs["input_ids"].tolist()[1] == [*ids("bad", ":", "one"), EOS, PAD]

    def test_a_long_input_loses_its_own_end_and_keeps_the_separator(self) -> None:
        given = codec("decoder", max_length=5, separator=" = :")
        short, long = encoded(given, row("good day and", "one"), row("good day and night", "one"))
        assert (short.truncated, long.truncated) == (False, True)
        assert short.inputs["input_ids"] == long.inputs["input_ids"] == ids("good", "day", "and", "=", ":")

    def test_a_separator_longer_than_all_room_leaves_no_more_than_the_room(self) -> None:
        given = codec("decoder", max_length=4, separator=": : : : : :")
        [found] = encoded(given, row("good day and night"))
        assert found.truncated
        assert found.inputs["input_ids"] == ids(":") * 4

    def test_a_long_target_keeps_its_end(self) -> None:
        given = codec("decoder", max_target_length=3)
        assert given.targets(["one two", "one two three"]) == (
            [[*ids("one", "two"), EOS], [*ids("one", "two"), EOS]],
            [False, True],
        )

    def test_what_the_tokenizer_puts_around_texts_does_not_end_the_prompt_or_begin_the_target(self) -> None:
        given = codec("decoder", framed("[CLS] $A [SEP]"))
        [found] = encoded(given, row("good day", "one"))
        assert found.inputs["input_ids"] == [BOS, *ids("good", "day", ":")]
        assert found.target_ids == [*ids("one"), EOS]

    def test_a_cut_prompt_keeps_its_beginning_and_does_not_end_either(self) -> None:
        given = codec("decoder", framed("[CLS] $A [SEP]"), max_length=4)
        [found] = encoded(given, row("good day and night", "one"))
        assert (found.inputs["input_ids"], found.truncated) == ([BOS, *ids("good", "day", ":")], True)

    def test_packed_rows_are_padded_rows_all_the_same(self) -> None:
        given = codec("decoder")
        rows = encoded(given, row("good day", "one"), row("bad", "one two three"))
        packed, plain = collate(rows, given, pack_to=16), collate(rows, given)
        assert packed.packing is not None
        assert plain.packing is None
        assert packed.packing.row_RP.tolist() == [[1] * 6 + [0] * 5]
        assert packed.inputs["input_ids"].tolist() == plain.inputs["input_ids"].tolist()
        assert collate(rows, given, prompts=True, pack_to=16).packing is None


class TestEncoders:
    def test_an_encoder_reads_pairs_as_pairs_and_writes_nothing(self) -> None:
        given = codec("encoder", tiny_tokenizer("bert"))
        [found] = encoded(given, row("good", "bad", text_pair="day"), spec=MOOD)
        assert found.inputs["input_ids"] == [BOS, *ids("good"), EOS, *ids("day"), EOS]
        assert (list(found.target_ids), found.label_id) == ([], 0)
        assert collate([found], given).labels_BT is None


class TestTexts:
    @pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
    def test_every_target_ends_with_the_end_exactly_once(self, kind: Kind) -> None:
        texts = ["good", "good day", "one two three up", "a b c d e f g"]
        for found in codec(kind, max_target_length=4).targets(texts)[0]:
            assert found.count(EOS) == 1
            assert found[-1] == EOS
            assert len(found) <= 4

    @pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
    def test_no_texts_give_no_targets(self, kind: Kind) -> None:
        assert codec(kind).targets([]) == ([], [])

    @pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
    def test_text_stops_at_the_end(self, kind: Kind) -> None:
        given = codec(kind)
        assert given.text([*ids("good", "day"), EOS, *ids("bad")]) == "good day"
        assert given.text(ids("good", "day")) == "good day"
        assert given.text([PAD, BOS, *ids("good"), EOS, PAD]) == "good"
        assert given.text([EOS]) == given.text([]) == ""

    def test_text_is_read_with_the_writer_s_tokenizer(self) -> None:
        target_tokenizer = tiny_lm_tokenizer("decoder")
        target_tokenizer.eos_token = "[MASK]"
        given = codec("encoder-decoder", target_tokenizer=target_tokenizer)
        assert given.end_id == LANGUAGE
        assert given.text([*ids("good"), LANGUAGE, *ids("bad")]) == "good"

    def test_a_tokenizer_without_an_end_is_refused(self) -> None:
        tokenizer = tiny_lm_tokenizer("decoder")
        tokenizer.eos_token = None
        with pytest.raises(ModelError, match="the tokenizer has no eos_token, so nothing can end an answer"):
            codec("decoder", tokenizer).targets(["good"])


class TestChats:
    def chatty(self, kind: Kind = "decoder", **settings: Any) -> Codec:
        tokenizer = tiny_lm_tokenizer(kind)
        tokenizer.chat_template = TEMPLATE
        return codec(kind, tokenizer, **settings)

    def test_messages_are_written_in_the_tokenizer_s_template_up_to_the_answer(self) -> None:
        messages = (("user", "good day"), ("assistant", "bad"), ("user", "no"))
        [found] = encoded(self.chatty(), row("unread", "yes", messages=messages))
        plain = tiny_lm_tokenizer("decoder")
        text = "[CLS] user : good day [CLS] assistant : bad [CLS] user : no [CLS] you :"
        assert found.inputs["input_ids"] == list(plain(text, add_special_tokens=False).input_ids)
        assert found.inputs["input_ids"][-3:] == [BOS, *ids("you", ":")]
        assert found.target_ids == [*ids("yes"), EOS]

    def test_no_separator_stands_behind_the_template(self) -> None:
        given = self.chatty(separator=" = = =")
        [found] = encoded(given, row("unread", messages=(("user", "no"),)))
        assert found.inputs["input_ids"][-2:] == ids("you", ":")

    def test_the_template_s_special_tokens_are_not_doubled(self) -> None:
        tokenizer = framed("[CLS] $A [SEP]")
        tokenizer.chat_template = TEMPLATE
        [found] = encoded(codec("decoder", tokenizer), row("unread", messages=(("user", "no"),)))
        assert found.inputs["input_ids"].count(BOS) == 2
        assert EOS not in found.inputs["input_ids"]

    @pytest.mark.parametrize("broken", ["{{ messages[0].content + 1 }}", "{{ messages[9]['role'].x }}", "{{ 1 // 0 }}"])
    def test_a_template_that_fails_is_told(self, broken: str) -> None:
        given = self.chatty()
        given.tokenizer.chat_template = broken
        with pytest.raises(DataError, match=r"rows.jsonl:3: task 'summary': the base model's chat template refuses the messages"):
            encoded(given, row("unread", messages=(("user", "no"),), place="rows.jsonl:3"))

    def test_a_long_conversation_loses_its_beginning(self) -> None:
        messages = (("user", "good day and night"),)
        [whole] = encoded(self.chatty(max_length=64), row("unread", messages=messages))
        [cut] = encoded(self.chatty(max_length=5), row("unread", messages=messages))
        assert (whole.truncated, cut.truncated) == (False, True)
        assert cut.inputs["input_ids"] == whole.inputs["input_ids"][-5:]

    def test_an_encoder_decoder_reads_it_as_any_text(self) -> None:
        [found] = encoded(self.chatty("encoder-decoder"), row("unread", "yes", messages=(("user", "no"),)))
        assert found.inputs["input_ids"][-4:] == [BOS, *ids("you", ":"), EOS]
        assert found.target_ids == [*ids("yes"), EOS]

    @pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
    def test_a_tokenizer_without_a_template_is_refused(self, kind: Kind) -> None:
        with pytest.raises(ModelError, match=r"task 'summary' is a chat, but the tokenizer .* has no chat template; drop `chat`"):
            encoded(codec(kind), row("unread", messages=(("user", "no"),)))

    def test_messages_that_the_template_refuses_are_told_by_their_place(self) -> None:
        messages = (("system", "be good"), ("user", "no"))
        with pytest.raises(DataError, match=r"^rows\.jsonl:3: task 'summary': .* refuses the messages \(no system\); allowed: "):
            encoded(self.chatty(), row("unread", messages=messages, place="rows.jsonl:3"))
        with pytest.raises(DataError, match=r"^a row: task 'summary': "):
            encoded(self.chatty(), row("unread", messages=messages))


def test_logits_are_asked_for_from_the_first_answer_on_and_no_earlier() -> None:
    codec = Codec(tokenizer=tiny_lm_tokenizer("decoder"), kind="decoder")
    rows = [Features(task_id=0, inputs={"input_ids": [5] * n}, target_ids=[6] * m) for n, m in ((7, 2), (4, 3), (9, 1))]
    batch = collate(rows, codec)
    assert batch.labels_BT is not None
    assert batch.num_kept == 7  # 10 positions; the shortest prompt's last token, at position 3, predicts the first answer
    assert (batch.labels_BT[:, : 10 - 7 + 1] == NOT_A_CLASS).all()
    assert collate(rows, codec, pack_to=20).num_kept is None
