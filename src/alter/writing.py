"""How a model that writes answers rows: it ranks a task's labels, or generates text.

    rank        log p(label's text | input) of every label, exact, all labels of many rows in one pass; the likeliest wins
    generate    transformers' generate with the task's settings; a label or number that was not written properly is invalid

Shapes: B rows, A alternatives (all rows' labels together), S tokens, T tokens to write, E adapters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from alter.data.batch import batches_by_length, collate
from alter.data.codec import Codec
from alter.data.encode import Features
from alter.errors import TrainingError
from alter.model import MTAModel
from alter.nn.losses import NOT_A_CLASS
from alter.nn.tokens import mean_over_tokens
from alter.tasks.answer import target_text
from alter.tasks.spec import GenerationSettings, TaskSpec

MAX_ALTERNATIVES = 512
MAX_LOGITS = 2**28
"""Of one pass: at most so many labels, and so many numbers (1 GiB in float32); a single row may need more."""
_MARK = "\0"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model answers to one row.

    Attributes:
        value: label, number or text; for an answer that is no label or number, the text that was written (labels) or NaN (numbers).
        score: probability of the label; for what was written, exp of its mean log-likelihood per token, where it was asked for.
        scores: probability of every label, where they were ranked.
        text: what was written; None where labels were ranked.
        is_valid: whether what was written is a label, a number or, for a generation, any text.
        weights: site position -> gate weights of the row, (E,), where they were asked for.
    """

    value: str | float
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None
    is_valid: bool = True
    weights: Mapping[int, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Answers rows of any tasks by writing.

    Attributes:
        model: the equipped model.
        codec: its way with text.
        specs: task id -> the task.
        batch_size: rows per pass.
        details: also score what was written, and record gate weights: one more pass over each answer.
    """

    model: MTAModel
    codec: Codec
    specs: Mapping[int, TaskSpec]
    batch_size: int = 64
    details: bool = False

    def answer(self, rows: Sequence[Features]) -> list[Answer]:
        """Answer rows, in their order.

        Raises:
            TrainingError: a log-likelihood is NaN, so there is nothing to rank or score.
        """
        self.model.eval()
        ranked = [position for position, row in enumerate(rows) if _ranks(self.specs[row.task_id])]
        written: dict[GenerationSettings, list[int]] = {}
        for position, row in enumerate(rows):
            if not _ranks(spec := self.specs[row.task_id]):
                written.setdefault(spec.generation, []).append(position)
        found: dict[int, Answer] = {}
        with torch.inference_mode():
            found.update(self._rank_all(rows, ranked))
            for settings, positions in written.items():
                for chosen in batches_by_length([rows[position] for position in positions], self.batch_size):
                    mine = [positions[place] for place in chosen]
                    found.update(zip(mine, self._write([rows[position] for position in mine], settings), strict=True))
        return [found[position] for position in range(len(rows))]

    def weights(self, rows: Sequence[Features]) -> dict[int, torch.Tensor]:
        """Return the gate weights of rows with targets by site, (B, E), while the targets are read (needs `details`)."""
        with torch.inference_mode():
            return self._score(rows, rows, [1] * len(rows))[2]

    def _rank_all(self, rows: Sequence[Features], positions: Sequence[int]) -> dict[int, Answer]:
        if not positions:
            return {}
        choices = {task: self._choices(task) for task in {rows[position].task_id for position in positions}}
        found: dict[int, Answer] = {}
        for chosen in batches_by_length([rows[position] for position in positions], self.batch_size):
            mine_all = [positions[place] for place in chosen]
            for part in _parts(mine_all, [self._cost(rows[position], choices[rows[position].task_id]) for position in mine_all]):
                mine = [rows[position] for position in part]
                found.update(zip(part, self._rank(mine, [choices[row.task_id] for row in mine]), strict=True))
        return found

    def _cost(self, row: Features, texts: Sequence[Sequence[int]]) -> int:
        """Return how many logits ranking a row takes, in units of MAX_LOGITS / MAX_ALTERNATIVES and at least one a label."""
        longest = max(len(ids) for ids in texts) + (len(row.inputs["input_ids"]) if self.codec.kind == "decoder" else 0)
        embeddings: Any = self.model.backbone.get_input_embeddings()
        vocabulary = int(embeddings.weight.shape[0])
        return len(texts) * max(1, math.ceil(longest * vocabulary * MAX_ALTERNATIVES / MAX_LOGITS))

    def _choices(self, task_id: int) -> list[list[int]]:
        spec = self.specs[task_id]
        return self.codec.targets([target_text(spec, label) for label in spec.labels or []])[0]

    def _rank(self, rows: Sequence[Features], choices: Sequence[list[list[int]]]) -> Iterator[Answer]:
        alternatives = [replace(row, target_ids=ids) for row, texts in zip(rows, choices, strict=True) for ids in texts]
        counts = [len(texts) for texts in choices]
        sums_A, means_A, weights = self._score(rows, alternatives, counts)
        start = 0
        for position, (row, count) in enumerate(zip(rows, counts, strict=True)):
            spec = self.specs[row.task_id]
            log_p_C = (means_A if spec.length_normalization else sums_A)[start : start + count]
            probabilities = torch.softmax(log_p_C, dim=-1).tolist()
            scores = dict(zip(spec.labels or [], probabilities, strict=True))
            best = (spec.labels or [])[int(log_p_C.argmax())]
            chosen = start + int(log_p_C.argmax())
            mine = {site: given_B[chosen if len(given_B) == len(alternatives) else position] for site, given_B in weights.items()}
            yield Answer(value=best, score=scores[best], scores=scores, weights=mine)
            start += count

    def _score(
        self,
        rows: Sequence[Features],
        alternatives: Sequence[Features],
        counts: Sequence[int],
        *,
        start_ids_B: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[int, torch.Tensor]]:
        """Return the log-likelihood of each alternative, whole and per token, (A,), and the gate weights of rows or alternatives.

        `start_ids_B`: what the decoder began with; None: with what it learned to begin with (encoder-decoder).
        """
        model, device = self.model, self.model.device
        batch = collate(alternatives, self.codec).to(device)
        assert batch.labels_BT is not None
        inputs: dict[str, Any] = dict(batch.inputs)
        read_BS = batch.inputs["attention_mask"]
        with model.record_weights() as recorded:
            if self.codec.kind == "encoder-decoder":  # read each row once, whatever the number of its labels
                prompt = collate(rows, self.codec, prompts=True).to(device)
                read_BS = prompt.inputs["attention_mask"]
                read_BSD = model.encode(prompt.inputs["input_ids"], read_BS, task_ids=prompt.task_ids_B)
                times_B = torch.tensor(counts, device=device)
                inputs = {
                    "attention_mask": read_BS.repeat_interleave(times_B, dim=0),
                    "encoder_outputs": BaseModelOutput(last_hidden_state=read_BSD.repeat_interleave(times_B, dim=0)),
                }
                if start_ids_B is not None:
                    before_BT = batch.labels_BT[:, :-1].masked_fill(batch.labels_BT[:, :-1] == NOT_A_CLASS, self.codec.end_id)
                    inputs["decoder_input_ids"] = torch.cat([start_ids_B.unsqueeze(1), before_BT], dim=1)
            losses_AT = model(**inputs, task_ids=batch.task_ids_B, **batch.supervised).token_losses
        wanted_AT = batch.labels_BT[:, batch.labels_BT.shape[1] - losses_AT.shape[1] :]
        sums_A = -losses_AT.double().sum(-1)
        if sums_A.isnan().any():
            names = sorted({model.task_names[row.task_id] for row in rows})
            raise TrainingError(
                f"the model's log-likelihoods are NaN for a batch of {len(rows)} rows (tasks: {', '.join(names)}), only finite numbers can "
                f"be scored; train it again with lower learning_rates"
            )
        weights = self._weights(recorded, read_BS, wanted_AT) if self.details else {}
        recorded.clear()  # the model would keep them until the next recording
        return sums_A.cpu(), (sums_A / (wanted_AT != NOT_A_CLASS).sum(-1)).cpu(), weights

    def _write(self, rows: Sequence[Features], settings: GenerationSettings) -> list[Answer]:
        batch = collate(rows, self.codec, prompts=True).to(self.model.device)
        backbone: Any = self.model.backbone
        own, chosen = backbone.generation_config, self.generation_config(settings)
        backbone.generation_config = chosen  # generate takes from the model's own whatever it is not told
        try:
            ids_BT = self.model.generate(
                batch.inputs["input_ids"],
                batch.inputs["attention_mask"],
                task_ids=batch.task_ids_B,
                generation_config=chosen,
            )
        finally:
            backbone.generation_config = own
        begin = batch.inputs["input_ids"].shape[1] if self.codec.kind == "decoder" else 1
        written = [self._until_end(ids) for ids in ids_BT[:, begin:].tolist()]
        answers = [self._read(self.codec.text(ids), self.specs[row.task_id]) for row, ids in zip(rows, written, strict=True)]
        if not self.details:
            return answers
        again = [replace(row, target_ids=ids or [self.codec.end_id]) for row, ids in zip(rows, written, strict=True)]
        _, means_B, weights = self._score(rows, again, [1] * len(rows), start_ids_B=ids_BT[:, 0])
        return [
            replace(answer, score=math.exp(mean), weights={site: given_B[position] for site, given_B in weights.items()})
            for position, (answer, mean) in enumerate(zip(answers, means_B.tolist(), strict=True))
        ]

    def _until_end(self, ids: Sequence[int]) -> list[int]:
        end = self.codec.end_id
        return [*ids[: ids.index(end)], end] if end in ids else list(ids)

    def generation_config(self, settings: GenerationSettings) -> GenerationConfig:
        """Return transformers' settings: the task's, and of the model's own only what its tokens mean."""
        own = self.model.backbone.generation_config
        assert own is not None
        chosen = settings.model_dump(exclude_none=True, exclude_defaults=True)
        chosen["max_new_tokens"] = min(settings.max_new_tokens or self.codec.max_target_length, self.codec.max_target_length)
        start = own.decoder_start_token_id if own.decoder_start_token_id is not None else own.bos_token_id
        if self.codec.kind == "encoder-decoder" and own.decoder_start_token_id is None:
            start = getattr(self.model.backbone.config, "decoder_start_token_id", None)
            start = self.codec.start_id if start is None else start
        return GenerationConfig(
            **{"top_k": 0, **chosen} if settings.do_sample else chosen,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=start if self.codec.kind == "encoder-decoder" else None,
            forced_bos_token_id=own.forced_bos_token_id,
            bad_words_ids=own.bad_words_ids,
            suppress_tokens=own.suppress_tokens,
            eos_token_id=self.codec.end_id,
            pad_token_id=self.codec.writer.pad_token_id,
        )

    def _read(self, text: str, spec: TaskSpec) -> Answer:
        """Return what a written text says."""
        if spec.kind == "generation":
            return Answer(value=text, text=text)
        if spec.kind == "regression":
            number = _number(text, spec)
            return Answer(value=number, text=text, is_valid=math.isfinite(number))
        texts = [target_text(spec, label) for label in spec.labels or []]
        label = _find(text, texts, spec)
        if label is None:  # some tokenizers do not give back what they read (BERT's: not-entailment -> not - entailment)
            label = _find(text, [self.codec.text(ids) for ids in self.codec.targets(texts)[0]], spec)
        return Answer(value=text if label is None else label, text=text, is_valid=label is not None)

    def _weights(
        self, recorded: Mapping[int, torch.Tensor], read_BS: torch.Tensor, wanted_AT: torch.Tensor
    ) -> dict[int, torch.Tensor]:
        """Return gate weights by site, (rows, E): weights by token are averaged over the tokens read, or written by a second stack."""
        stacks = {position: ffn.site.stack for position, ffn in zip(self.model.site_positions, self.model.ffns, strict=True)}
        found = {}
        for site, weights in recorded.items():
            if weights.dim() == 3:
                writes = self.codec.kind == "encoder-decoder" and stacks[site] == "decoder"
                weights = mean_over_tokens(weights, (wanted_AT != NOT_A_CLASS) if writes else read_BS)
            found[site] = weights.float().cpu()
        return found


def _ranks(spec: TaskSpec) -> bool:
    return spec.kind == "classification" and spec.decoding == "rank"


def _parts(positions: Sequence[int], counts: Sequence[int]) -> Iterator[list[int]]:
    """Cut rows into parts of at most MAX_ALTERNATIVES labels together, and at least one row."""
    part: list[int] = []
    total = 0
    for position, count in zip(positions, counts, strict=True):
        if part and total + count > MAX_ALTERNATIVES:
            yield part
            part, total = [], 0
        part.append(position)
        total += count
    if part:
        yield part


def _find(text: str, texts: Sequence[str], spec: TaskSpec) -> str | None:
    """Return the label whose text was written, of `texts` in the order of the labels."""
    return {_fold(meant): label for meant, label in zip(texts, spec.labels or [], strict=True)}.get(_fold(text))


def _number(text: str, spec: TaskSpec) -> float:
    """Return the number in a written text, which stands between the words of the task's target; NaN where there is none."""
    before, mark, after = target_text(spec, _MARK).partition(_MARK)
    if mark:
        text = _fold(text).removeprefix(_fold(before)).removesuffix(_fold(after))
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _fold(text: str) -> str:
    return " ".join(text.lower().split())
