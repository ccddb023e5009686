"""Find the FFNs of a model that no family covers: by its structure, and believed only where a forward pass shows the same.

A repeated layer's projections outside attention must be those of one FFN and nothing else: two (plain, fused_gated) or three
(gated). Which is which, and with what activation, is measured: in one pass over random tokens, what every projection writes is
replaced by random numbers, and the FFN is the one arrangement that gives, from these, what the last projection called has read.
Random numbers tell activations apart that a model's own small ones do not (gelu from silu), and they need no names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, permutations
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from alter.errors import ModelError
from alter.nn.ffn import find_ffn
from alter.nn.site import FFNForm, FFNSite, Kind, Stack, projection_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Activation = Callable[[torch.Tensor], torch.Tensor]

# Columns of the random batch: B rows, S source tokens, a decoder's T target tokens. All differ, so that a swap of axes shows.
NUM_ROWS, NUM_SOURCE, NUM_TARGET = 2, 6, 5
TOLERANCE = 1e-4
SPREAD = 2.0
ATTENTION = re.compile("attn|attention", re.IGNORECASE)
ACTIVATION = re.compile("act|gelu|relu|silu|swish", re.IGNORECASE)
COMMON = ("gelu", "gelu_new", "relu", "silu")
CONFIG_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation", "ffn_act_fn")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One repeated layer: what it has outside attention."""

    path: str
    stack: Stack
    projections: dict[str, nn.Module]
    others: list[str]
    activations: tuple[Activation, ...]


@dataclass(frozen=True)
class Call:
    """The last call of a projection: what it read, what was passed on in place of its output, and when."""

    x: torch.Tensor
    y: torch.Tensor
    turn: int


def guess_kind(config: PreTrainedConfig, *, class_name: str = "") -> Kind:
    """Return how a model reads and writes text, as far as its config and its class say.

    A bare model has the layers of the class that it was made for; where the config names none, it is a decoder if transformers
    has its model type among the causal language models and not among the masked ones.
    """
    model_type = str(getattr(config, "model_type", None))
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    named = [class_name, *(getattr(config, "architectures", None) or [])]
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in named)
    only_causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "decoder" if causal or only_causal or getattr(config, "is_decoder", False) else "encoder"


def guess_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return the FFN sites that the structure of `model` shows, the encoder's first, each checked in a forward pass.

    Raises:
        ModelError: there is none, more than one reading fits, or the pass shows something else.
    """
    layers = _layers(model)
    for layer in layers:
        if len(layer.projections) not in (2, 3) or layer.others:
            held = _shown(layer.projections, layer.others)
            raise ModelError(f"outside attention, {layer.path} must hold 2 or 3 projections and no other matrix; it holds {held}")
    with _evaluating(model):
        calls = _calls(model, layers)
        sites = [_site(model, layer, calls) for layer in layers]
        for site in sites:
            model.get_submodule(site.owner).train()
        calls = _calls(model, layers)
        return [replace(site, dropout=_dropout(model, site, calls)) for site in sites]


# Structure


def _layers(model: PreTrainedModel) -> list[Layer]:
    """Return the layers of the model's one stack, or of its encoder and its decoder."""
    kind = guess_kind(model.config, class_name=type(model).__name__)
    lists = _lists(model)
    if kind == "encoder-decoder":
        stacks: dict[str, Stack] = {path: "decoder" if "decoder" in path.lower() else "encoder" for path in lists}
        expected: list[Stack] = ["encoder", "decoder"]
    else:
        stacks = dict.fromkeys(lists, kind)
        expected = [kind]
    if sorted(stacks.values()) != sorted(expected):
        raise ModelError(f"expected one list of layers per stack ({', '.join(expected)}); {_found(model, lists)}")
    paths = sorted(lists, key=lambda path: expected.index(stacks[path]))
    return [
        _layer(model, f"{path}.{name}", block, stacks[path]) for path in paths for name, block in lists[path].named_children()
    ]


def _found(model: nn.Module, lists: dict[str, nn.ModuleList]) -> str:
    """Return which lists were found, by what their first blocks hold outside attention; if none, what the first list's holds."""
    if lists:
        blocks = {f"{path}.0": blocks[0] for path, blocks in lists.items()}
        shown = [f"{path} with {_shown(dict(_projections(path, block)), _others(path, block))}" for path, block in blocks.items()]
        return f"found {len(lists)}: {'; '.join(shown)}"
    every = [(f"{path}.0", module[0]) for path, module in model.named_modules() if isinstance(module, nn.ModuleList) and module]
    if not every:
        return "it has no list of layers"
    path, block = every[0]
    linears: dict[str, nn.Module] = {
        f"{path}.{name}": module for name, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    return f"found none with projections outside attention; {path} holds {_shown(linears, _others(path, block))}"


def _shown(projections: dict[str, nn.Module], others: list[str]) -> str:
    """Return projections and other matrices by name and shape."""
    shapes = {path: projection_shape(module) for path, module in projections.items()}
    listed = [*(f"{path} ({inputs} -> {outputs})" for path, (inputs, outputs) in shapes.items()), *others]
    return ", ".join(listed) or "none"


def _lists(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """Return the outermost lists of blocks of one class that hold projections outside attention."""
    found: dict[str, nn.ModuleList] = {}
    for path, module in model.named_modules():
        inner = any(path.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and not inner and not ATTENTION.search(path) and _repeats(module):
            found[path] = module
    return found


def _repeats(blocks: nn.ModuleList) -> bool:
    """Return whether these are blocks of one class, no bare projections, and one of them has projections outside attention."""
    alike = len({type(block) for block in blocks}) == 1
    return alike and not isinstance(blocks[0], nn.Linear | Conv1D) and any(any(True for _ in _projections("", b)) for b in blocks)


def _layer(model: PreTrainedModel, path: str, block: nn.Module, stack: Stack) -> Layer:
    activations = (*_activations(block), *_activations_of(model.config))
    projections = dict(_projections(path, block))
    return Layer(path=path, stack=stack, projections=projections, others=_others(path, block), activations=activations)


def _others(path: str, block: nn.Module) -> list[str]:
    """Return the matrices outside attention that belong to no projection, e.g. a mixture's experts, by name and shape."""
    return [
        f"{name}.{parameter} {tuple(value.shape)}"
        for name, module in _outside_attention(path, block)
        for parameter, value in module.named_parameters(recurse=False)
        if value.dim() > 1 and not isinstance(module, nn.Linear | Conv1D)
    ]


def _projections(path: str, block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in _outside_attention(path, block) if isinstance(module, nn.Linear | Conv1D))


def _outside_attention(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (dotted path, module) of `module` and all below it, less what is attention by its name or its class's."""
    yield path, module
    for name, child in module.named_children():
        if not ATTENTION.search(name) and not ATTENTION.search(type(child).__name__):
            yield from _outside_attention(f"{path}.{name}", child)


def _activations(block: nn.Module) -> Iterator[Activation]:
    """Yield what may be an FFN's activation: modules without parameters and functions, called or made as one."""
    for _, module in _outside_attention("", block):
        for name, child in module.named_children():
            bare = not any(True for _ in child.parameters()) and not any(True for _ in child.children())
            if bare and (ACTIVATION.search(name) or ACTIVATION.search(type(child).__name__)):
                yield child
        for name, value in vars(module).items():
            if ACTIVATION.search(name) and callable(value):
                yield value


def _activations_of(config: PreTrainedConfig) -> Iterator[Activation]:
    """Yield the activations that the config names and the most common ones, made anew."""
    named = (getattr(config, key, None) for key in CONFIG_KEYS)
    for name in dict.fromkeys([*(name for name in named if isinstance(name, str)), *COMMON]):
        if name in ACT2FN:
            yield ACT2FN[name]


# Measurement


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, then every module back into the mode it was in; the random state stays as it was."""
    was = {module: module.training for module in model.modules()}
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        model.train(mode=False)
        with torch.no_grad(), torch.random.fork_rng(devices=sorted(devices, key=str)):
            torch.manual_seed(0)
            yield
    finally:
        for module, training in was.items():
            module.training = training


def _calls(model: PreTrainedModel, layers: list[Layer]) -> dict[str, Call]:
    """Run the model on random tokens and return the last call of every projection; each writes random numbers."""
    calls: dict[str, Call] = {}
    turns = count()

    def watch(path: str) -> Callable[..., torch.Tensor]:
        def note(_: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
            y = torch.randn_like(out) * SPREAD
            calls[path] = Call(args[0], y, next(turns))
            return y

        return note

    handles = [module.register_forward_hook(watch(path)) for layer in layers for path, module in layer.projections.items()]
    try:
        model.base_model(**_inputs(model))
    except Exception as error:  # whatever a model of unknown kind says to plain token ids
        first = str(error).strip().split("\n", 1)[0]
        held = _shown(layers[0].projections, layers[0].others)
        raise ModelError(
            f"{type(model.base_model).__name__} cannot be run on token ids alone to check ({type(error).__name__}: {first}); "
            f"outside attention, {layers[0].path} holds {held}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _inputs(model: PreTrainedModel) -> dict[str, Any]:
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, torch.Tensor)

    def ids(length: int) -> torch.Tensor:
        # The upper half: special tokens, which some models treat as padding, are mostly at the start.
        rows = embeddings.shape[0]
        return torch.randint(rows // 2, rows, (NUM_ROWS, length)).to(embeddings.device)

    given = {"input_ids": ids(NUM_SOURCE)}
    return {**given, "decoder_input_ids": ids(NUM_TARGET)} if getattr(model.config, "is_encoder_decoder", False) else given


def _site(model: PreTrainedModel, layer: Layer, calls: dict[str, Call]) -> FFNSite:
    """Return the site that fits what was measured in `layer`."""
    silent = [path for path in layer.projections if path not in calls]
    if silent:
        raise ModelError(
            f"{layer.path} never calls {', '.join(silent)}; its projections outside attention are {_shown(layer.projections, layer.others)}"
        )
    *inputs, down = sorted(layer.projections, key=lambda path: calls[path].turn)
    fitting = [
        site for site in (_arranged(model, layer, calls, *one, down) for one in _arrangements(layer, inputs, down)) if site
    ]
    if len(fitting) != 1:
        what = "no form and activation give" if not fitting else "several forms give"
        raise ModelError(
            f"in {layer.path}, {what} what {down} reads; its projections outside attention are {_shown(layer.projections, layer.others)}"
        )
    rows = [calls[path].x.shape for path in inputs]
    if not all(_rows_first(shape) for shape in rows):
        raise ModelError(f"{layer.path} does not read (rows, tokens, width), but {tuple(rows[0])} of {NUM_ROWS} rows")
    return fitting[0]


def _arrangements(layer: Layer, inputs: list[str], down: str) -> list[tuple[FFNForm, tuple[str, ...]]]:
    """Return the forms that the shapes allow, with the projections in the order in which the form names them."""
    shapes = [projection_shape(layer.projections[path]) for path in inputs]
    inner, width = projection_shape(layer.projections[down])
    if len(inputs) == 2:
        return [("gated", pair) for pair in permutations(inputs)] if shapes == [(width, inner)] * 2 else []
    forms: dict[tuple[int, int], FFNForm] = {(width, inner): "plain", (width, 2 * inner): "fused_gated"}
    return [(forms[shapes[0]], tuple(inputs))] if shapes[0] in forms else []


def _arranged(
    model: PreTrainedModel, layer: Layer, calls: dict[str, Call], form: FFNForm, inputs: tuple[str, ...], down: str
) -> FFNSite | None:
    """Return the site of this form with the first activation that gives what `down` read, or None."""
    owner = _owner(model, (*inputs, down))
    if not all(torch.equal(calls[path].x, calls[inputs[0]].x) for path in inputs):
        return None
    for activation in layer.activations:
        site = FFNSite(owner=owner, inputs=inputs, down=down, activation=activation, form=form, stack=layer.stack)
        if _close(_expected(model, site, calls), calls[down].x):
            return site
    return None


def _owner(model: nn.Module, paths: tuple[str, ...]) -> str:
    """Return the nearest module above all of `paths` that can be given a child: a container would run it, or index it."""
    parts = [path.split(".")[:-1] for path in paths]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    while isinstance(model.get_submodule(".".join(shared)), nn.Sequential | nn.ModuleList | nn.ModuleDict):
        shared.pop()
    return ".".join(shared)


def _expected(model: nn.Module, site: FFNSite, calls: dict[str, Call]) -> torch.Tensor:
    return find_ffn(model, site).combine()([calls[path].y for path in site.inputs])


def _close(expected: torch.Tensor, seen: torch.Tensor, *, tolerance: float = TOLERANCE) -> bool:
    # In half precision too: the same operations on the same numbers round in the same way.
    return expected.shape == seen.shape and bool((expected.to(seen.dtype) - seen).abs().max() <= tolerance)


def _rows_first(shape: torch.Size) -> bool:
    """Return whether a projection reads (rows, tokens, width), or these with rows and tokens made one."""
    if len(shape) == 2:
        return shape[0] in (NUM_ROWS * NUM_SOURCE, NUM_ROWS * NUM_TARGET)
    return len(shape) == 3 and shape[0] == NUM_ROWS


def _dropout(model: nn.Module, site: FFNSite, calls: dict[str, Call]) -> float:
    """Return the rate at which training empties what `down` reads, by the factor that it puts on the rest."""
    expected, seen = _expected(model, site, calls).double(), calls[site.down].x.double()
    kept = seen != 0
    if not kept.any():
        return 1.0
    precision = torch.finfo(calls[site.down].x.dtype).eps
    factor = float(seen[kept].abs().sum() / expected[kept].abs().sum())
    if not _close(expected * kept * factor, seen, tolerance=max(TOLERANCE, 64 * precision)) or factor < 1 - TOLERANCE:
        raise ModelError(f"{site.down} reads something else in training than in evaluation, and it is not dropout")
    return max(0.0, round(1 - 1 / factor, 4 if precision < TOLERANCE else 2))
