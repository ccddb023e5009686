"""Writing: batches of mixed tasks equal their rows alone, and token by token with a cache equals the whole answer in one pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.generative.lm import (
    CHOSEN,
    GATES,
    OVERFLOWS,
    SELECTORS,
    answers_in,
    codec_of,
    every_pair,
    every_variant,
    near,
    rows_for,
    run,
    teacher_forced,
    trained_lm,
    write,
)
from tests.tiny import GENERATIVE

from alter.data.encode import Features
from alter.errors import ModelError
from alter.model import MTAModel
from alter.tasks.spec import GenerationSettings, TaskSpec
from alter.writing import Writer

GREEDY: dict[str, Any] = {}
BEAMS: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2}
SAMPLES: dict[str, Any] = {"do_sample": True, "top_k": 0, "num_return_sequences": 2}


def as_handed_out(name: str) -> dict[str, float]:
    """Return how near logits must be that transformers' `generate` hands out: it rounds them to float32."""
    return near(name) if name in OVERFLOWS else {"rtol": 1e-6, "atol": 1e-6}


def assert_cache_is_harmless(model: MTAModel, rows: list[Features], settings: dict[str, Any], name: str) -> None:
    """Write, and compare the logits of every step with one pass over the whole answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        output = write(model, rows, **settings)
    answers = answers_in(model, rows, output.sequences)
    each = settings.get("num_return_sequences", 1)
    repeated = [row for row in rows for _ in range(each)]
    assert len(answers) == len(repeated)
    steps = torch.stack(output.logits, dim=1)
    if "num_beams" in settings:  # which of the row's beams each token came from
        beams = output.beam_indices
        steps = torch.stack([output.logits[step][beams[:, step]] for step in range(len(answers[0]))], dim=1)
    torch.testing.assert_close(teacher_forced(model, repeated, answers).float(), steps, **as_handed_out(name))
    assert model.state.kept is None
    assert not model.state.kept_reads
    assert model.state.route is None


# ---- mixed batches ---------------------------------------------------------------------------------------------------


@every_pair
def test_a_mixed_batch_is_written_as_its_rows_alone(preset: str, name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"] if preset == "alter-lite" else None, preset=preset)
    rows = rows_for(model.kind)
    for settings in (GREEDY, BEAMS):
        each = settings.get("num_return_sequences", 1)
        together = write(model, rows, num_tokens=4, **settings)
        answers = answers_in(model, rows, together.sequences)
        for position in (1, 2) if settings else (0, 1, 2):  # three tasks and three lengths, the longest first
            row = rows[position]
            alone = write(model, [row], num_tokens=4, **settings)
            mine = slice(position * each, (position + 1) * each)
            assert answers_in(model, [row], alone.sequences) == answers[mine]
            if settings:
                torch.testing.assert_close(alone.sequences_scores, together.sequences_scores[mine], **as_handed_out(name))
            else:
                found = torch.stack(together.logits, dim=1)[mine]
                torch.testing.assert_close(torch.stack(alone.logits, dim=1), found, **as_handed_out(name))


@every_variant
def test_sampling_follows_its_seed(name: str) -> None:
    model = trained_lm(name, preset="alter")
    rows = rows_for(model.kind)
    found = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(answers_in(model, rows, write(model, rows, num_tokens=3, **SAMPLES).sequences))
    assert len(found[0]) == 2 * len(rows)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_tasks_with_their_own_settings_share_a_writer(name: str) -> None:
    kinds: list[dict[str, Any]] = [{}, {"num_beams": 3}, {"num_beams": 2, "max_new_tokens": 3}]
    specs = {
        task: TaskSpec(name=f"task{task}", kind="generation", generation=GenerationSettings(**settings))
        for task, settings in enumerate(kinds)
    }
    model = trained_lm(name, GATES["outputs"])
    writer = Writer(model=model, codec=codec_of(model.kind), specs=specs, details=True)
    rows = rows_for(model.kind)
    together = writer.answer(rows)
    assert any(answer.text for answer in together)
    for row, answer in zip(rows, together, strict=True):
        alone = writer.answer([row])[0]
        assert alone.text == answer.text
        assert alone.score == pytest.approx(answer.score, abs=1e-9)
        for site, weights in answer.weights.items():
            torch.testing.assert_close(alone.weights[site], weights, rtol=0, atol=1e-6)


# ---- token by token --------------------------------------------------------------------------------------------------


@every_pair
def test_writing_with_a_cache_equals_one_pass(preset: str, name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence_shared"] if preset == "alter-lite" else None, preset=preset)
    for settings in (GREEDY, BEAMS, SAMPLES) if name in CHOSEN else (BEAMS, SAMPLES):
        assert_cache_is_harmless(model, rows_for(model.kind)[:3], settings, name)


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("gate", GATES)
def test_every_gate_holds_while_an_answer_is_written(name: str, gate: str) -> None:
    model = trained_lm(name, GATES[gate])
    assert_cache_is_harmless(model, rows_for(model.kind)[:3], BEAMS, name)


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector_holds_while_an_answer_is_written(name: str, selector: str) -> None:
    model = trained_lm(name, {"selector": SELECTORS[selector]}, router="selector")
    assert_cache_is_harmless(model, rows_for(model.kind)[:3], BEAMS, name)


BY_ROW_AND_BY_TOKEN: dict[str, dict[str, Any]] = {
    "outputs over a selector by token": {"selector": SELECTORS["linear_token"], "gate": {"kind": "outputs"}},
    "by row over a selector by token": {"selector": SELECTORS["linear_token"], "gate": {"kind": "linear", "over": "shared"}},
    "by token over a selector by row": {
        "selector": SELECTORS["linear_sequence"],
        "gate": {"kind": "linear", "over": "shared", "granularity": "token"},
    },
}


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("kind", BY_ROW_AND_BY_TOKEN)
def test_what_reads_the_row_holds_beside_what_reads_the_token(name: str, kind: str) -> None:
    model = trained_lm(name, BY_ROW_AND_BY_TOKEN[kind])
    assert_cache_is_harmless(model, rows_for(model.kind)[:3], BEAMS, name)


@pytest.mark.parametrize("name", ["bart", "t5", "llama"])
def test_a_prompt_of_one_token_is_enough(name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"])
    rows = [Features(task_id=task, inputs={"input_ids": [40 + task]}) for task in range(3)]
    assert_cache_is_harmless(model, rows, GREEDY, name)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_writing_leaves_the_model_in_training_mode(name: str) -> None:
    model = trained_lm(name).train()
    write(model, rows_for(model.kind), num_tokens=2)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["t5", "bart", "encoder_decoder"])
def test_a_decoder_that_does_not_know_what_it_begins_with_is_told(name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"])
    model.backbone.config.decoder_start_token_id = None
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(ModelError, match=r"does not say what its decoder begins with .*'decoder_start_token_id': None"):
        model(input_ids=ids, task_ids=torch.tensor([0]), labels=ids)


@pytest.mark.parametrize("name", [name for name, variant in GENERATIVE.items() if variant.kind == "decoder"])
def test_losses_are_the_same_with_the_prompts_logits_or_without(name: str) -> None:
    model = trained_lm(name)
    kept, whole = run(model), run(model, logits_to_keep=0)
    assert kept.losses is not None
    assert whole.losses is not None
    assert kept.token_losses is not None
    assert whole.token_losses is not None
    assert kept.token_losses.shape[1] <= whole.token_losses.shape[1]
    torch.testing.assert_close(kept.losses, whole.losses)
