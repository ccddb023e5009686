"""The battery that every encoder family must pass; a new family file, of any kind, is tested the moment it exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.tiny import FAMILY_NAMES, GENERATIVE, seeded, tiny_config, tiny_model
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from alter.backbones import FAMILIES
from alter.backbones._family import Family
from alter.backbones._find import family_of, sites_of
from alter.nn.site import FFNSite

ENCODERS = [name for name in FAMILIES.names() if FAMILIES.get(name).kind == "encoder"]
CASES = [(name, model_type) for name in ENCODERS for model_type in FAMILIES.get(name).model_types]
HEADS = [AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForMaskedLM]
NUM_LAYERS = 3
# B 2 rows, S 6 tokens, the second row padded.
IDS_BS = torch.tensor([[2, 10, 11, 12, 13, 3], [2, 20, 21, 3, 0, 0]])
MASK_BS = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])

every_model_type = pytest.mark.parametrize(("name", "model_type"), CASES)


def build(name: str, model_type: str, *, head: Any = AutoModel, chunk: int = 0, **settings: Any) -> PreTrainedModel:
    config = tiny_config(name, model_type=model_type, num_layers=NUM_LAYERS, **settings)
    config.chunk_size_feed_forward = chunk
    return seeded(head, config).double()


class Seen:
    """What the modules of one site read and wrote during a forward pass, chunks joined along the tokens."""

    def __init__(self, model: PreTrainedModel, site: FFNSite) -> None:
        self._chunks: dict[str, list[torch.Tensor]] = {"x": [], "inner": [], "y": []}
        self._handles = [
            model.get_submodule(site.inputs[0]).register_forward_hook(lambda _, args, out: self._add(x=args[0])),
            model.get_submodule(site.down).register_forward_hook(lambda _, args, out: self._add(inner=args[0], y=out)),
        ]

    def _add(self, **tensors: torch.Tensor) -> None:
        for key, tensor in tensors.items():
            self._chunks[key].append(tensor.detach())

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.cat(self._chunks[key], dim=1)

    def count(self) -> int:
        return len(self._chunks["y"])


def run(model: PreTrainedModel) -> tuple[list[FFNSite], list[Seen]]:
    sites = sites_of(model)
    seen = [Seen(model, site) for site in sites]
    with torch.no_grad():
        model(input_ids=IDS_BS, attention_mask=MASK_BS)
    for one in seen:
        one.stop()
    return sites, seen


def inner_by_hand(model: PreTrainedModel, site: FFNSite, x: torch.Tensor) -> torch.Tensor:
    """Compute what `down` reads from nothing but the site: its form, its projections and its activation."""
    projected: list[torch.Tensor] = [model.get_submodule(path)(x) for path in site.inputs]
    if site.form == "plain":
        return site.activation(projected[0])
    if site.form == "gated":
        return site.activation(projected[0]) * projected[1]
    first, second = projected[0].chunk(2, dim=-1)
    return site.activation(first) * second


@every_model_type
@pytest.mark.parametrize("head", HEADS)
def test_there_is_one_site_per_layer_in_the_order_of_the_forward_pass(name: str, model_type: str, head: Any) -> None:
    model = build(name, model_type, head=head)
    sites = sites_of(model)
    order: list[str] = []

    def note(path: str) -> Callable[..., None]:
        return lambda *_: order.append(path)

    for site in reversed(sites):
        model.get_submodule(site.down).register_forward_hook(note(site.down))
    with torch.no_grad():
        model(input_ids=IDS_BS, attention_mask=MASK_BS)
    assert len(sites) == NUM_LAYERS
    assert order == [site.down for site in sites]


@every_model_type
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_a_site_computes_what_its_ffn_computes(name: str, model_type: str, head: Any, activation: str) -> None:
    model = build(name, model_type, head=head, activation=activation)
    for site, seen in zip(*run(model), strict=True):
        with torch.no_grad():
            y = model.get_submodule(site.down)(inner_by_hand(model, site, seen["x"]))
        assert seen["y"].abs().max() > 1e-4
        torch.testing.assert_close(y, seen["y"], rtol=0, atol=1e-10)


@every_model_type
def test_a_site_is_right_when_the_model_chunks_its_ffn(name: str, model_type: str) -> None:
    model = build(name, model_type, chunk=2)
    chunks = any(getattr(module, "chunk_size_feed_forward", 0) for module in model.modules())
    for site, seen in zip(*run(model), strict=True):
        with torch.no_grad():
            y = model.get_submodule(site.down)(inner_by_hand(model, site, seen["x"]))
        assert seen.count() == (3 if chunks else 1)
        torch.testing.assert_close(y, seen["y"], rtol=0, atol=1e-10)


@every_model_type
def test_dropout_is_the_rate_between_activation_and_down(name: str, model_type: str) -> None:
    model = build(name, model_type, dropout=0.5).train()
    for site, seen in zip(*run(model), strict=True):
        with torch.no_grad():
            expected = inner_by_hand(model, site, seen["x"])
        kept = seen["inner"] != 0
        torch.testing.assert_close(seen["inner"][kept], expected[kept] / (1 - site.dropout), rtol=0, atol=1e-10)
        assert 1 - kept.double().mean().item() == pytest.approx(site.dropout, abs=0.1)


@every_model_type
def test_the_activation_is_the_models_own_object(name: str, model_type: str) -> None:
    model = build(name, model_type)
    owned = {id(module) for module in model.modules()}
    assert all(id(site.activation) in owned for site in sites_of(model))


@every_model_type
def test_the_owner_holds_all_projections_of_its_site_and_of_no_other(name: str, model_type: str) -> None:
    sites = sites_of(build(name, model_type))
    owners = [site.owner for site in sites]
    for site in sites:
        holders = [owner for owner in owners if all(path.startswith(f"{owner}.") for path in (*site.inputs, site.down))]
        assert holders == [site.owner]


@every_model_type
def test_a_change_of_what_down_writes_changes_what_the_model_says(name: str, model_type: str) -> None:
    model = build(name, model_type)
    with torch.no_grad():
        before = model(input_ids=IDS_BS, attention_mask=MASK_BS).last_hidden_state
    for site in sites_of(model):
        # A direction that no layer norm takes away: only one of the coordinates moves.
        bump = torch.zeros(before.shape[-1], dtype=before.dtype).index_fill(0, torch.tensor(3), 1.0)
        handle = model.get_submodule(site.down).register_forward_hook(lambda _, args, out, bump=bump: out + bump)
        with torch.no_grad():
            after = model(input_ids=IDS_BS, attention_mask=MASK_BS).last_hidden_state
        handle.remove()
        assert (after - before).abs().max() > 1e-3, site.down


@every_model_type
def test_a_model_is_found_by_its_model_type(name: str, model_type: str) -> None:
    family = family_of(build(name, model_type))
    assert isinstance(family, Family)
    assert family is FAMILIES.get(name)


def test_every_family_has_a_tiny_config() -> None:
    assert list(FAMILY_NAMES) == ENCODERS, "add an entry to TINY in tests/tiny.py for each encoder family in alter/backbones"
    covered = {variant.family for variant in GENERATIVE.values()}
    others = set(FAMILIES.names()) - set(ENCODERS)
    assert covered == others, "add an entry to GENERATIVE in tests/tiny.py for each other family in alter/backbones"


def test_a_family_without_a_tiny_config_is_told_where_to_add_it() -> None:
    with pytest.raises(LookupError, match=r"tests/tiny.py has no tiny config for the family 'newcomer'; add an entry to TINY"):
        tiny_config("newcomer")
    with pytest.raises(LookupError, match=r"no tiny config for the model type 'xmod'; add it to TWINS"):
        tiny_config("roberta", model_type="xmod")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_tiny_models_are_the_same_for_the_same_seed_and_leave_the_random_state_alone(family: str) -> None:
    state = torch.get_rng_state()
    first, again, other = tiny_model(family), tiny_model(family), tiny_model(family, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    parameters = dict(again.named_parameters())
    assert all(torch.equal(value, parameters[key]) for key, value in first.named_parameters())
    assert any(not torch.equal(value, dict(other.named_parameters())[key]) for key, value in first.named_parameters())
    assert isinstance(first, nn.Module)
    assert not first.training
