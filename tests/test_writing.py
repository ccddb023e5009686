"""How models that write answer: exact ranking, generation by each task's own settings, and what counts as an answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score
from tests.tiny import EOS, GENERATIVE, PAD, VOCAB_SIZE, tiny_lm, tiny_lm_tokenizer
from tokenizers.processors import TemplateProcessing

import alter.writing
from alter.data.codec import Codec
from alter.data.encode import Features, Scale, encode
from alter.errors import TrainingError
from alter.evaluation import EvalSet, answers_of, evaluate, score_task
from alter.model import MTAModel, equip
from alter.tasks.example import Example
from alter.tasks.read import target_text
from alter.tasks.spec import GenerationSettings, TaskSpec
from alter.writing import Answer, Writer

MOOD = TaskSpec(name="mood", labels=["bad", "very good day", "no"])
TOPIC = TaskSpec(name="topic", labels=["bill", "login"], target="about {{ label }}")
MEAN = TaskSpec(name="mean", labels=["bad", "very good day", "no", "one two three"], length_normalization=True)
TITLE = TaskSpec(name="title", kind="generation", generation=GenerationSettings(max_new_tokens=5))
BEAMS = TaskSpec(
    name="beams", kind="generation", generation=GenerationSettings(max_new_tokens=6, num_beams=3, length_penalty=0.5)
)
SAID = TaskSpec(name="said", labels=["good", "bad"], decoding="generate")
STARS = TaskSpec(name="stars", kind="regression")
SPECS = (MOOD, TOPIC, MEAN, TITLE, BEAMS, SAID, STARS)
IDS = {spec.name: position for position, spec in enumerate(SPECS)}
TEXTS = ("the good day", "we hate it", "open the bank account please and help us now", "no")
LANGUAGE = 4
STARTS = {"t5": PAD, "bart": EOS, "mbart": LANGUAGE}
"""What a decoder begins with; mBART with the language, its texts' last token."""

Row = tuple[TaskSpec, str]


def codec_of(name: str) -> Codec:
    kind = GENERATIVE[name].kind
    tokenizer = tiny_lm_tokenizer(kind)
    if name == "mbart":
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A [SEP] [MASK]", pair="$A $B [SEP] [MASK]", special_tokens=[("[SEP]", EOS), ("[MASK]", LANGUAGE)]
        )
    return Codec(kind=kind, tokenizer=tokenizer, max_length=32, max_target_length=12, separator=" :")


def model_of(name: str, **mta: Any) -> MTAModel:
    """Return a model in float64 whose adapters and gates all matter, routed by its gates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = equip(
            tiny_lm(name), tasks=[spec.name for spec in SPECS], mta={"adapter": {"r": 4}, "gate": {"kind": "linear"}, **mta}
        )
        model.start_gates()
        with torch.no_grad():
            groups = model.parameter_groups()
            for group in (groups["task_adapters"], groups["shared_adapters"], groups["gate"]):
                for parameter in group.values():
                    parameter.add_(0.3 * torch.randn_like(parameter))
            # A random model hardly looks at what it reads; sharper outputs make answers differ.
            model.backbone.get_output_embeddings().weight.mul_(4)
    model.router = "gate"
    model.backbone.generation_config.forced_eos_token_id = None  # so that transformers' own generate writes what ours does
    return model.double().train(mode=False)


@pytest.fixture(scope="module", params=["t5", "bart", "mbart", "gpt2", "llama"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> MTAModel:
    return model_of(name)


@pytest.fixture(scope="module")
def codec(name: str) -> Codec:
    return codec_of(name)


def rows_of(codec: Codec, *given: Row) -> list[Features]:
    return [encode([Example(task=spec.name, text=text)], spec, task_id=IDS[spec.name], codec=codec)[0] for spec, text in given]


def writer(model: MTAModel, codec: Codec, **settings: Any) -> Writer:
    return Writer(model=model, codec=codec, specs=dict(enumerate(SPECS)), **settings)


def token_scores(model: MTAModel, codec: Codec, row: Features, ids: Sequence[int], *, start: int) -> list[float]:
    """Return the log-likelihood of every token of one text after one input, the plain way."""
    task, prompt, width = torch.tensor([row.task_id]), list(row.inputs["input_ids"]), len(ids)
    with torch.inference_mode():
        if codec.kind == "encoder-decoder":
            before = torch.tensor([[start, *ids[:-1]]])
            logits = model(input_ids=torch.tensor([prompt]), task_ids=task, decoder_input_ids=before).logits[0]
        else:
            # Gates by row look at the prompt alone, so the model must know where it ends.
            labels = torch.tensor([[-100] * len(prompt) + list(ids)])
            logits = model(input_ids=torch.tensor([prompt + list(ids)]), task_ids=task, labels=labels).logits[0, -width - 1 : -1]
    log_p = torch.log_softmax(logits, dim=-1)
    assert log_p.dtype == torch.float64
    return [float(log_p[position, token]) for position, token in enumerate(ids)]


def by_hand(name: str, model: MTAModel, codec: Codec, row: Features) -> dict[str, float]:
    """Return the log-likelihood of every label, one at a time; per token where the task says so."""
    spec = SPECS[row.task_id]
    found = {}
    for label in spec.labels or []:
        [ids] = codec.targets([target_text(spec, label)])[0]
        scores = token_scores(model, codec, row, ids, start=STARTS.get(name, -1))
        found[label] = sum(scores) / len(scores) if spec.length_normalization else sum(scores)
    return found


def assert_ranked(answer: Answer, log_p: dict[str, float]) -> None:
    assert answer.value == max(log_p, key=lambda label: log_p[label])
    assert (answer.text, answer.is_valid) == (None, True)
    assert list(answer.scores) == list(log_p)
    total = math.log(sum(map(math.exp, log_p.values())))
    for label, score in answer.scores.items():
        assert score == pytest.approx(math.exp(log_p[label] - total), rel=1e-8)
    assert answer.score == answer.scores[str(answer.value)]


def assert_alike(one: Sequence[Answer], other: Sequence[Answer]) -> None:
    for first, second in zip(one, other, strict=True):
        assert (first.value, first.text, first.is_valid) == (second.value, second.text, second.is_valid)
        assert first.scores == pytest.approx(second.scores, rel=1e-8)
        assert first.score == pytest.approx(second.score, rel=1e-8)


class TestRanking:
    MIXED = [(spec, text) for text in TEXTS for spec in (MOOD, TOPIC, MEAN)]

    def test_scores_are_those_of_every_label_alone_and_tasks_may_be_mixed(self, name: str, model: MTAModel, codec: Codec) -> None:
        rows = rows_of(codec, *self.MIXED)
        answers = writer(model, codec, batch_size=5).answer(rows)
        for row, answer in zip(rows, answers, strict=True):
            assert_ranked(answer, by_hand(name, model, codec, row))

    @pytest.mark.parametrize("most", [1, 3, 7])
    def test_parts_answer_as_the_whole_does(
        self, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch, most: int
    ) -> None:
        rows = rows_of(codec, *self.MIXED)
        whole = writer(model, codec).answer(rows)
        sizes = []
        score = Writer._score

        def noted(self: Writer, rows: Any, alternatives: Any, counts: Any, **more: Any) -> Any:
            sizes.append((len(rows), len(alternatives)))
            return score(self, rows, alternatives, counts, **more)

        monkeypatch.setattr(Writer, "_score", noted)
        monkeypatch.setattr(alter.writing, "MAX_ALTERNATIVES", most)
        assert_alike(writer(model, codec).answer(rows), whole)
        assert sum(alternatives for _, alternatives in sizes) == 4 * (3 + 2 + 4)
        assert all(alternatives <= most or number == 1 for number, alternatives in sizes)

    def test_length_normalisation_divides_by_the_tokens_of_each_label(self, model: MTAModel, codec: Codec) -> None:
        spec = MOOD.model_copy(update={"length_normalization": True})
        rows = rows_of(codec, *((MOOD, text) for text in TEXTS))
        plain = writer(model, codec).answer(rows)
        normalised = Writer(model=model, codec=codec, specs={0: spec}).answer(rows)
        tokens = [len(ids) for ids in codec.targets(MOOD.labels or [])[0]]
        for one, other in zip(plain, normalised, strict=True):
            # softmax leaves out a constant per row, so the normalised scores tell the plain ones up to one number.
            sums = [math.log(score) * number for score, number in zip(other.scores.values(), tokens, strict=True)]
            shifts = [math.log(score) - given for score, given in zip(one.scores.values(), sums, strict=True)]
            # log p_i = sum_i - Z, mean_i = sum_i / n_i - Z': shift_i = n_i Z' - Z is linear in the number of tokens.
            first, second, third = shifts
            slope = (second - first) / (tokens[1] - tokens[0])
            assert third == pytest.approx(first + slope * (tokens[2] - tokens[0]), abs=1e-6)

    def test_no_rows_have_no_answers(self, model: MTAModel, codec: Codec) -> None:
        assert writer(model, codec).answer([]) == []

    def test_scores_that_are_no_numbers_are_not_ranked(self, model: MTAModel, codec: Codec) -> None:
        broken = copy.deepcopy(model)
        with torch.no_grad():
            broken.backbone.get_output_embeddings().weight.fill_(math.nan)
        with pytest.raises(TrainingError, match=r"log-likelihoods are NaN for a batch of 1 rows \(tasks: mood\)"):
            writer(broken, codec).answer(rows_of(codec, (MOOD, "good")))


class TestGateWeights:
    @pytest.mark.parametrize("name", ["t5", "gpt2"])
    @pytest.mark.parametrize("granularity", ["token", "sequence"])
    def test_a_row_has_its_own_weights_whatever_stands_beside_it(self, name: str, granularity: str) -> None:
        model, codec = model_of(name, gate={"kind": "linear", "granularity": granularity}), codec_of(name)
        rows = rows_of(codec, *((spec, text) for text in TEXTS for spec in (MOOD, TITLE)))
        together = writer(model, codec, details=True).answer(rows)
        for row, answer in zip(rows, together, strict=True):
            [alone] = writer(model, codec, details=True).answer([row])
            assert alone.weights.keys() == answer.weights.keys() == set(model.site_positions)
            for site, weights_E in answer.weights.items():
                assert weights_E.shape == (len(SPECS) + 2,)
                assert torch.allclose(weights_E, alone.weights[site], atol=1e-5)

    def test_they_are_recorded_only_where_asked_for_and_not_kept(self) -> None:
        model, codec = model_of("t5"), codec_of("t5")
        [answer] = writer(model, codec).answer(rows_of(codec, (MOOD, "good")))
        assert answer.weights == {}
        writer(model, codec, details=True).answer(rows_of(codec, (MOOD, "good"), (TITLE, "bad")))
        assert model.state.recorded == {}


def direct(model: MTAModel, codec: Codec, row: Features, **settings: Any) -> str:
    """Return what transformers' generate writes to one row by these settings."""
    ids = model.generate(
        torch.tensor([row.inputs["input_ids"]]),
        torch.ones(1, len(row.inputs["input_ids"]), dtype=torch.int64),
        task_ids=torch.tensor([row.task_id]),
        eos_token_id=EOS,
        pad_token_id=PAD,
        **settings,
    )[0].tolist()
    return codec.text(ids[len(row.inputs["input_ids"]) if codec.kind == "decoder" else 1 :])


class TestGeneration:
    MIXED = [(spec, text) for text in TEXTS for spec in (TITLE, MOOD, BEAMS)]

    def test_each_task_is_decoded_by_its_own_settings_in_one_call(self, model: MTAModel, codec: Codec) -> None:
        rows = rows_of(codec, *self.MIXED)
        answers = writer(model, codec, batch_size=3).answer(rows)
        settings: dict[str, dict[str, Any]] = {
            "title": {"max_new_tokens": 5},
            "beams": {"max_new_tokens": 6, "num_beams": 3, "length_penalty": 0.5},
        }
        for row, answer in zip(rows, answers, strict=True):
            spec = SPECS[row.task_id]
            if spec.name in settings:
                assert answer.text == answer.value == direct(model, codec, row, **settings[spec.name])
                assert answer.is_valid
        texts = {spec.name: [a.text for a, r in zip(answers, rows, strict=True) if r.task_id == IDS[spec.name]] for spec in SPECS}
        assert len(set(texts["title"])) > 1, "one text for every row proves little"
        assert texts["title"] != texts["beams"]

    def test_an_answer_is_no_longer_than_the_recipe_allows(self, model: MTAModel, codec: Codec) -> None:
        for asked, most in ((None, 12), (3, 3), (50, 12)):
            assert writer(model, codec).generation_config(GenerationSettings(max_new_tokens=asked)).max_new_tokens == most

    def test_the_base_model_s_own_settings_do_not_leak_in(self, model: MTAModel, codec: Codec) -> None:
        rows = rows_of(codec, *self.MIXED)
        expected = writer(model, codec, details=True).answer(rows)
        own = {
            "num_beams": 4, "no_repeat_ngram_size": 1, "min_length": 40, "max_length": 99, "length_penalty": 3.0, "early_stopping": True,
            "repetition_penalty": 5.0, "do_sample": True, "temperature": 5.0, "top_k": 3, "forced_eos_token_id": 7,
            "encoder_no_repeat_ngram_size": 1, "begin_suppress_tokens": [5, 6],
        }  # fmt: skip
        before = model.backbone.generation_config
        assert before is not None
        settings: Any = copy.deepcopy(before)
        for key, value in own.items():
            setattr(settings, key, value)
        model.backbone.generation_config = settings
        try:
            assert_alike(writer(model, codec, details=True).answer(rows), expected)
            assert model.backbone.generation_config is settings
        finally:
            model.backbone.generation_config = before

    def test_the_base_model_s_own_settings_would_change_something(self, model: MTAModel, codec: Codec) -> None:
        rows = rows_of(codec, *((TITLE, text) for text in TEXTS))
        plain = [direct(model, codec, row, max_new_tokens=5) for row in rows]
        assert plain != [direct(model, codec, row, max_new_tokens=5, forced_eos_token_id=7) for row in rows]

    def test_tokens_that_the_base_model_never_writes_stay_unwritten(
        self, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As Marian's checkpoints say of their padding, which they would write otherwise.
        [[good, *_]], _ = codec.targets(["good"])
        others = [[token] for token in range(VOCAB_SIZE) if token != good]
        monkeypatch.setattr(model.backbone.generation_config, "bad_words_ids", others)
        [answer] = writer(model, codec).answer(rows_of(codec, (TITLE, TEXTS[0])))
        assert set(str(answer.text).split()) <= {"good"}  # the end alone is allowed beside it

    def test_sampling_is_seeded_by_torch_and_reads_its_settings(self, model: MTAModel, codec: Codec) -> None:
        settings = GenerationSettings(do_sample=True, max_new_tokens=5)
        sampled = {IDS["title"]: TITLE.model_copy(update={"generation": settings})}
        rows = rows_of(codec, *((TITLE, text) for text in TEXTS))
        config = writer(model, codec).generation_config(settings)
        assert (config.do_sample, config.top_k) == (True, 0)

        def draw(seed: int) -> list[Answer]:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return Writer(model=model, codec=codec, specs=sampled).answer(rows)

        assert draw(1) == draw(1)
        assert draw(1) != draw(2)

    def test_the_score_is_the_mean_likelihood_of_the_tokens_written(
        self, name: str, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if name == "mbart":  # a multilingual model begins with the language that it is told, whatever it wrote before
            monkeypatch.setattr(model.backbone.generation_config, "decoder_start_token_id", LANGUAGE)
        rows = rows_of(codec, *((spec, text) for text in TEXTS for spec in (TITLE, BEAMS)))
        written: list[list[int]] = []
        until_end = Writer._until_end

        def noted(self: Writer, ids: Sequence[int]) -> list[int]:
            written.append(until_end(self, ids))
            return written[-1]

        monkeypatch.setattr(Writer, "_until_end", noted)
        for row in rows:
            written.clear()
            [answer] = writer(model, codec, details=True).answer([row])
            [ids] = written
            scores = token_scores(model, codec, row, ids, start=STARTS.get(name, -1))
            assert answer.score == pytest.approx(math.exp(sum(scores) / len(scores)), rel=1e-8)
            assert answer.scores == {}

    def test_scores_do_not_depend_on_the_batch(self, model: MTAModel, codec: Codec) -> None:
        rows = rows_of(codec, *self.MIXED)
        alone = [writer(model, codec, details=True).answer([row])[0] for row in rows]
        assert_alike(writer(model, codec, details=True).answer(rows), alone)


def says(monkeypatch: pytest.MonkeyPatch, codec: Codec, *texts: str) -> None:
    """Let a model write these texts, one per row of the call, in the order of the batch's rows, longest input first."""

    def generate(self: MTAModel, input_ids: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        assert len(input_ids) == len(texts)
        ids = [codec.targets([text])[0][0] for text in texts]
        width = max(map(len, ids))
        written = torch.tensor([[*row, *[PAD] * (width - len(row))] for row in ids])
        start = input_ids if codec.kind == "decoder" else torch.full((len(texts), 1), PAD)
        return torch.cat([start, written], dim=1)

    monkeypatch.setattr(MTAModel, "generate", generate)


class TestWhatCountsAsAnAnswer:
    def eval_set(self, codec: Codec, spec: TaskSpec, references: Sequence[str | float]) -> EvalSet:
        rows = rows_of(codec, *((spec, "the day") for _ in references))
        return EvalSet(spec=spec, features=rows, references=references, scale=Scale())

    def test_what_is_no_label_counts_as_wrong_and_is_counted(
        self, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        says(monkeypatch, codec, "good", "GOOD", "bad", "good day", "")
        given = {"said": self.eval_set(codec, SAID, ["good", "bad", "bad", "good", "bad"])}
        [answers] = answers_of(model, given, codec=codec, batch_size=8).values()
        assert [answer.value for answer in answers] == ["good", "good", "bad", "good day", ""]
        assert [answer.is_valid for answer in answers] == [True, True, True, False, False]
        assert [answer.text for answer in answers] == ["good", "good", "bad", "good day", ""]
        scores, values = evaluate(model, given, codec=codec, batch_size=8)
        found = scores.tasks["said"]
        assert values["said"] == ["good", "good", "bad", "good day", ""]
        assert (found.num_examples, found.num_invalid) == (5, 2)
        assert found.metrics["accuracy"] == pytest.approx(40.0)
        expected = f1_score(
            ["good", "bad", "bad", "good", "bad"], values["said"], labels=["bad", "good"], average="macro", zero_division=0
        )
        assert found.metrics["f1_macro"] == pytest.approx(100 * expected)

    def test_macro_f1_gains_no_class_by_what_is_no_label(self) -> None:
        references = ["good", "bad", "bad"]
        invalid = score_task(SAID, ["good", "nonsense", "bad"], references, num_invalid=1)
        assert invalid.metrics["f1_macro"] == pytest.approx(100 * (1 + 2 / 3) / 2)
        assert invalid.num_invalid == 1

    def test_a_label_is_known_by_its_text(self, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
        told = TOPIC.model_copy(update={"decoding": "generate"})
        rows = rows_of(codec, (TOPIC, "a"), (TOPIC, "b"))
        says(monkeypatch, codec, "about bill", "bill")
        answers = Writer(model=model, codec=codec, specs={IDS["topic"]: told}).answer(rows)
        assert [(answer.value, answer.is_valid) for answer in answers] == [("bill", True), ("bill", False)]

    def test_a_label_is_known_as_the_tokenizer_gives_it_back(
        self, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = TaskSpec(name="said", labels=["up", "not-up", "don't know"], decoding="generate")
        rows = rows_of(codec, *((SAID, text) for text in TEXTS))
        says(monkeypatch, codec, "not-up", "don't know", "up", "not")
        answers = Writer(model=model, codec=codec, specs={IDS["said"]: told}).answer(rows)
        found = {answer.text: (answer.value, answer.is_valid) for answer in answers}
        assert found == {
            "not - up": ("not-up", True), "don ' t know": ("don't know", True), "up": ("up", True),
            "not": ("not", False),
        }  # fmt: skip

    def test_numbers_are_read_from_text_and_what_is_none_is_counted(
        self, model: MTAModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        says(monkeypatch, codec, "3", "one", "2", "", "nan", "7")
        given = {"stars": replace(self.eval_set(codec, STARS, [3.0, 1.0, 2.0, 2.5, 1.5, 6.0]), scale=Scale(mean=2.25, std=1.0))}
        scores, values = evaluate(model, given, codec=codec, batch_size=8)
        assert values["stars"] == pytest.approx([3.0, math.nan, 2.0, math.nan, math.nan, 7.0], nan_ok=True)
        found = scores.tasks["stars"]
        assert (found.num_invalid, found.num_examples) == (3, 6)
        # What is no number counts as the mean of the training rows' numbers: nothing leans on the references.
        filled = score_task(STARS, [3.0, 2.25, 2.0, 2.25, 2.25, 7.0], [3.0, 1.0, 2.0, 2.5, 1.5, 6.0])
        assert found.metrics == pytest.approx(filled.metrics)

    def test_no_number_at_all_scores_nothing(self) -> None:
        found = score_task(STARS, [math.nan, math.nan], [1.0, 2.0], num_invalid=2)
        assert (found.score, found.num_invalid) == (0.0, 2)

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("3 stars", 3.0),
            ("3  Stars", 3.0),
            ("3", 3.0),
            ("stars", math.nan),
            ("3 stars 4", math.nan),
            ("1e400 stars", math.nan),
        ],
    )
    def test_a_number_may_stand_between_the_target_s_words(self, text: str, number: float) -> None:
        spec = STARS.model_copy(update={"target": "{{ label }} stars"})
        made = Writer(model=None, codec=None, specs={})  # type: ignore[arg-type]
        assert made._read(text, spec).value == pytest.approx(number, nan_ok=True)
        assert made._read(text, spec).is_valid == math.isfinite(number)
