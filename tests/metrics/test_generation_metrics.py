"""The metrics of generated text against values worked out by hand and the examples that their libraries publish."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

import pytest

from alter.errors import PluginError, TaskError
from alter.metrics import METRICS, MetricTraits, metric_signature, metric_traits
from alter.metrics.rougeL_characters import lcs_length
from alter.metrics.span_f1 import parse_spans

# The example of sacrebleu's README: two references of each row.
SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
FIRST = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
SECOND = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]


def score(name: str, predictions: Any, references: Any, labels: Any = None) -> float:
    return float(METRICS.get(name)(predictions, references, labels=labels))


@pytest.mark.parametrize(
    ("name", "prediction", "reference", "expected"),
    [
        # rouge-score's README
        ("rouge1", "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog", 2 * 6 / (8 + 9)),
        ("rougeL", "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog", 2 * 5 / (8 + 9)),
        # rouge-score's own tests
        ("rouge1", "testing", "testing one two", 1 / 2),
        ("rouge2", "testing one", "testing one two", 2 / 3),
        ("rougeL", "testing two", "testing one two", 4 / 5),
        ("rougeL", "text first", "first text", 1 / 2),
        # by hand
        ("rouge2", "one", "one", 0.0),
        ("rouge1", "jumping dogs", "jumped dog", 1.0),
        ("rouge1", "天气很好", "天气很好", 0.0),
        ("rouge1", "", "", 0.0),
    ],
)
def test_rouge(name: str, prediction: str, reference: str, expected: float) -> None:
    assert score(name, [prediction], [reference]) == pytest.approx(expected)


def test_rouge_takes_the_best_reference_of_a_row_then_the_mean() -> None:
    references = [["testing", "testing one two"], ["nothing"]]
    assert score("rouge1", ["testing one", "text"], references) == pytest.approx((4 / 5 + 0) / 2)
    assert score("rougeL", ["text first"], [["first text", "first something", "text something else"]]) == pytest.approx(1 / 2)


def test_rouge_leaves_the_logging_of_the_process_alone() -> None:
    handlers = list(logging.getLogger().handlers)
    score("rougeL", ["one"], ["one"])
    assert logging.getLogger().handlers == handlers


def plain_lcs(one: str, other: str) -> int:
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if a == b else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


@pytest.mark.parametrize("seed", range(10))
def test_the_bit_parallel_lcs_is_the_plain_one(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(20):
        alphabet = "春夏秋冬abcdefgh"[: draw.randint(1, 12)]
        one, other = ("".join(draw.choices(alphabet, k=draw.randint(0, 90))) for _ in range(2))
        assert lcs_length(one, other) == plain_lcs(one, other)


def test_rouge_of_characters() -> None:
    # LCS 今天很好: 4 of 4 and of 6 characters
    assert score("rougeL_characters", ["今天很好"], ["今天天气很好"]) == pytest.approx(2 * 4 / (4 + 6))
    assert score("rougeL_characters", ["今 天\n很好"], ["今天天气 很好"]) == pytest.approx(2 * 4 / (4 + 6))
    assert score("rougeL_characters", ["今天很好", "雨"], [["雪", "今天很好"], ["雪"]]) == pytest.approx(1 / 2)
    assert score("rougeL_characters", [" ", "a"], ["a", " "]) == 0.0


def test_rouge_of_characters_is_fast_enough() -> None:
    draw = random.Random(0)
    rows = ["".join(draw.choices("的一是不了人我在有他这为之大来以个中上们", k=200)) for _ in range(1000)]
    before = time.process_time()
    assert score("rougeL_characters", rows[1:] + rows[:1], rows) < 1.0
    assert time.process_time() - before < 5


def test_bleu_and_chrf_as_sacrebleu_publishes_them() -> None:
    both = [list(pair) for pair in zip(FIRST, SECOND, strict=True)]
    assert score("bleu", SYSTEM, both) == pytest.approx(0.48530827)
    assert score("chrf", SYSTEM, both) == pytest.approx(0.5973, abs=5e-5)
    # Its example of a row with one reference less.
    fewer = [[SECOND[0]], *both[1:]]
    assert score("bleu", SYSTEM, fewer) == pytest.approx(0.2944, abs=5e-5)


def test_bleu_by_hand() -> None:
    # 3/4 words, 2/3 pairs, 1/2 triples; no 4-gram of the one: half a match by exponential smoothing
    assert score("bleu", ["this is a test"], ["this is a fest"]) == pytest.approx((3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)
    assert score("bleu", ["a b c"], ["a b c"]) == 0.0


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [(["a"], ["a"], 1.0), (["a b c"], ["abc"], 1.0), (["a", "b"], ["a", "c"], 0.5), (["aa"], ["ab"], 0.25), ([""], ["c"], 0.0)],
)
def test_chrf_by_hand(predictions: list[str], references: list[str], expected: float) -> None:
    assert score("chrf", predictions, references) == pytest.approx(expected)


def test_tokenized_predictions_are_scored_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    assert score("bleu", ["a b c d ."] * 200, ["a b c d ."] * 200) == pytest.approx(1.0)
    assert not caplog.records


def test_signatures_say_the_variant() -> None:
    bleu = "case:mixed|eff:no|tok:13a|smooth:exp|version:"
    assert (metric_signature("bleu", FIRST) or "").startswith(f"nrefs:1|{bleu}")
    assert (metric_signature("bleu", [FIRST[:2], SECOND[:2]]) or "").startswith(f"nrefs:2|{bleu}")
    assert (metric_signature("bleu", [FIRST, SECOND[:1]]) or "").startswith(f"nrefs:var|{bleu}")
    assert (metric_signature("chrf", FIRST) or "").startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert metric_signature("rougeL", FIRST) is None
    with pytest.raises(TaskError, match=r"^bleu: references\[1\] is an empty list"):
        metric_signature("bleu", [["a"], []])
    with pytest.raises(PluginError, match="unknown metric 'blue'"):
        metric_signature("blue", FIRST)


@pytest.mark.parametrize(
    ("prediction", "reference", "f1", "exact"),
    [
        ("The Denver Broncos!", "denver broncos", 1.0, 1.0),
        ("the Broncos of Denver", "Denver Broncos", 2 * 2 / (3 + 2), 0.0),
        ("cat cat cat", "cat cat dog", 2 / 3, 0.0),
        ("U.S.A.", "USA", 1.0, 1.0),
        ("theatre", "atre", 0.0, 0.0),
        ("", "Denver", 0.0, 0.0),
        ("the", "Denver", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("Denver", "", 0.0, 0.0),
    ],
)
def test_squad(prediction: str, reference: str, f1: float, exact: float) -> None:
    assert score("token_f1", [prediction], [reference]) == pytest.approx(f1)
    assert score("squad_exact_match", [prediction], [reference]) == exact
    assert score("token_f1", [prediction], [["something else", reference]]) == pytest.approx(f1)


def test_exact_match_takes_any_of_several_references() -> None:
    assert score("exact_match", ["New  York", "b", "c"], [["york", "new york"], ["a"], ["C"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("18", "18"),
        ("She makes 9 * 2 = $18.", "She makes 9 * 2 = $18 every day.\n#### 18"),
        ("so 9\n#### 18\nQuestion: what is 3 + 4?", "#### 18"),
        ("#### $27,200.00", "#### 27,200"),
        ("16,800,000", "16800000"),
        ("1.83333", "1.8333333333333333"),
        ("11/6", "1.83333"),
        ("8.3333333", "25/3"),
        ("25 / 3", "25/3"),
        ("It is -47.", "-47"),
        ("x=-4.5", "-4.5"),
        ("\u22127", "-7"),
        ("-$7", "-7"),
        ("48-24", "24"),
        ("答案是-3", "-3"),
        ("50%", "50"),
        (".5", "0.5"),
        ("1.23667e+06", "1236670"),
        ("the answer is 9:4", "9:4"),
        ("They meet at 3:30 pm", "3:30 p.m."),
        ("Ann has 24 and Bob has 32.", "24; 32"),
        ("they are  equal", "They are equal"),
        ("6", "6th"),
        ("3 or 4", ["5", "4.0"]),
    ],
)
def test_numbers_that_match(prediction: str, reference: str | list[str]) -> None:
    assert score("numeric_match", [prediction], [reference]) == 1.0


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("", "18"),
        ("eighteen", "18"),
        ("18, no, 19", "18"),
        ("18 ####", "18"),
        ("#### none, 18", "#### 19"),
        ("1.8", "1.83333"),
        ("1000001", "1000000"),
        ("47", "-47"),
        ("4", "9:4"),
        ("4:9", "9:4"),
        ("32; 24", "24; 32"),
        ("32", "24; 32"),
        ("3/0", "3"),
        ("5", "They are equal"),
        ("yes", "They are equal"),
    ],
)
def test_numbers_that_do_not_match(prediction: str, reference: str) -> None:
    assert score("numeric_match", [prediction], [reference]) == 0.0


def bio_spans(tags: list[str]) -> set[tuple[str, int, int]]:
    """Read (type, first, last + 1) as seqeval does by default: I- of another type than before begins a span too."""
    found: set[tuple[str, int, int]] = set()
    kind, first = "", 0
    for place, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            found.add((kind, first, place))
            kind = ""
        if tag != "O" and not kind:
            kind, first = tag[2:], place
    return found


def as_text(tokens: list[str], spans: set[tuple[str, int, int]]) -> str:
    in_order = sorted(spans, key=lambda span: span[1])
    return "; ".join(f"{kind}: {' '.join(tokens[first:end])}" for kind, first, end in in_order) or "none"


def random_tags(draw: random.Random, length: int) -> list[str]:
    return draw.choices(["O", "B-city", "I-city", "B-date", "I-date"], k=length)


@pytest.mark.parametrize("seed", range(10))
def test_spans_of_distinct_words_score_as_seqeval_counts_them(seed: int) -> None:
    draw = random.Random(seed)
    predictions, references = [], []
    correct = predicted = true = 0
    for row in range(50):
        tokens = [f"word{place}" for place in range(draw.randint(1, 12))]
        right = random_tags(draw, len(tokens)) if row % 10 else ["O"] * len(tokens)
        guess = [tag if draw.random() < 0.7 else other for tag, other in zip(right, random_tags(draw, len(tokens)), strict=True)]
        predictions.append(as_text(tokens, bio_spans(guess)))
        references.append(as_text(tokens, bio_spans(right)))
        correct += len(bio_spans(guess) & bio_spans(right))
        predicted += len(bio_spans(guess))
        true += len(bio_spans(right))
    precision, recall = correct / predicted, correct / true
    assert "none" in references
    assert score("span_f1", predictions, references) == pytest.approx(2 * precision * recall / (precision + recall))


def test_repeated_spans_are_counted_and_not_located() -> None:
    tokens = ["boston", "to", "boston"]
    first, second, both = ["B-city", "O", "O"], ["O", "O", "B-city"], ["B-city", "O", "B-city"]
    assert not bio_spans(first) & bio_spans(second)
    texts = {name: as_text(tokens, bio_spans(tags)) for name, tags in (("first", first), ("second", second), ("both", both))}
    assert score("span_f1", [texts["first"]], [texts["second"]]) == 1.0
    assert score("span_f1", [texts["first"]], [texts["both"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("none", {}),
        (" None\n", {}),
        ("City  name: Las  Vegas;", {("city name", "las vegas"): 1}),
        ("a: x; a: x; b: x", {("a", "x"): 2, ("b", "x"): 1}),
        ("a: x;\nb: y", {("a", "x"): 1, ("b", "y"): 1}),
        ("time: 13:22:09; name: via dolorosa: songs", {("time", "13:22:09"): 1, ("name", "via dolorosa: songs"): 1}),
        ("d: G6PD ; EC 1 . 1 ) deficiency; d: y", {("d", "g6pd ; ec 1 . 1 ) deficiency"): 1, ("d", "y"): 1}),
        ("charlotte", {("", "charlotte"): 1}),
        ("a: x; ; b: y", {("a", "x"): 1, ("b", "y"): 1}),
    ],
)
def test_spans_are_read_from_text(text: str, expected: dict[tuple[str, str], int]) -> None:
    assert parse_spans(text) == expected


def test_span_f1_by_hand() -> None:
    references = ["from: charlotte; to: las vegas", "none", "to: boston"]
    # correct: from charlotte; wrong: to vegas, to rome, and a text that is no span
    predictions = ["to: vegas; from: Charlotte", "to: rome", "boston"]
    assert score("span_f1", predictions, references) == pytest.approx(2 * 1 / (4 + 3))
    assert score("span_f1", ["none", ""], ["", "none"]) == 1.0
    assert score("span_f1", ["a: x"], [["b: y", "a: x; b: y"]]) == pytest.approx(2 / 3)


def test_span_f1_refuses_references_that_are_not_spans() -> None:
    with pytest.raises(TaskError, match=r"^span_f1: a reference of row 1 is 'banana'; it must be `type: value` items"):
        score("span_f1", ["none", "none"], ["none", "banana"])


def test_invalid_rate_counts_answers_outside_the_labels() -> None:
    assert score("invalid_rate", ["yes", "maybe", "Yes", "no"], ["yes"] * 4, ["yes", "no"]) == pytest.approx(2 / 4)
    for labels in (None, []):
        with pytest.raises(TaskError, match=r"^invalid_rate: needs the labels that the task allows.*set labels:"):
            score("invalid_rate", ["yes"], ["yes"], labels)


def test_traits_of_invalid_rate_and_the_labels_that_metrics_get() -> None:
    assert metric_traits("invalid_rate") == MetricTraits(
        kind="classification", metric_labels="task", higher_is_better=False, in_percent=True
    )
    chosen = {
        name: metric_traits(name).choose_labels(labels=["a", "b"], metric_labels=["b"])
        for name in ("invalid_rate", "f1", "f1_over_labels", "accuracy", "bleu")
    }
    assert chosen == {"invalid_rate": ["a", "b"], "f1": ["b"], "f1_over_labels": ["b"], "accuracy": None, "bleu": None}
