"""The settings of the Mixture-of-Task-Adapters module, and what of them fits together."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from alter.config import Settings
from alter.errors import PluginError, counted
from alter.registry import Registry

ADAPTERS = Registry("adapter kind", package="alter.nn.adapters", attribute="ADAPTER")
GATES = Registry("gate kind", package="alter.nn.gates", attribute="GATE")

ONLY_GATES = frozenset({"outputs"})
"""Kinds that cannot select: they start from a selector's weights."""
OWNERS = frozenset({"one_hot", "selector", "taps"})
"""Kinds that weigh by who owns an adapter (`num_owned`): shared adapters, which nobody owns, get no weight from them."""
ALIKE = frozenset({"uniform", "task", "linear"})
"""Kinds that, as a selector, start with equal weights: adapters that start equal would stay equal under them."""
COPIES = frozenset({"ffn_clone"})
"""Adapter kinds whose adapters start equal."""
MERGED = frozenset({"merged_bottleneck"})
"""Adapter kinds whose parameters are mixed, not their outputs: what adds to nothing alone learns nothing alone."""
UNDROPPED = {
    "ffn_clone": "adapters of kind ffn_clone stand in for the FFN: there is nothing that a row could do without",
    "merged_bottleneck": "adapters of kind merged_bottleneck mix parameters: larger weights of those left would not keep the mean",
}
"""Adapter kinds that no row can do without in training, and why."""
NO_TOP_K = frozenset({"adamix", "one_hot", "uniform", "outputs", "taps", "table"})
NO_TEMPERATURE = frozenset({"adamix", "one_hot", "uniform", "task", "linear", "outputs", "taps", "table"})
NO_SCORES = frozenset({"adamix", "one_hot", "uniform", "selector", "task", "linear", "outputs", "table"})
"""Kinds that read no `top_k`, no `temperature`, and no `threshold` and `start`."""
TASK_LEVEL = ("adamix", "one_hot", "selector", "table", "taps", "task", "uniform")
"""Kinds whose weights depend on the task alone (of a gate over shared adapters: where its selector's do)."""
UNMOVED = frozenset({"adamix", "one_hot", "uniform", "taps"})
"""Kinds whose weights no penalty on weights can move: they are fixed, or on and off."""


class AdapterSettings(Settings):
    """What every adapter is."""

    kind: str = "lora"
    """`lora` (on the FFN's own projections), `bottleneck` (parallel to the FFN), `merged_bottleneck` (the same, parameters mixed instead of
    outputs) or `ffn_clone` (a copy of the FFN)."""
    r: int = pydantic.Field(default=16, ge=1)
    """Rank (lora) or inner width (bottleneck, merged_bottleneck); ffn_clone has the FFN's own width and reads neither r nor lora_alpha."""
    lora_alpha: float = pydantic.Field(default=16.0, gt=0)
    """LoRA's scale is lora_alpha / r; the other kinds have scale 1."""
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Dropout on what an adapter reads, in training only."""

    @pydantic.field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        return known(ADAPTERS, kind)


class GateSettings(Settings):
    """A selector (stage 1) or a gate (stage 2): how adapters are weighed."""

    kind: str
    """`one_hot`, `uniform`, `adamix`, `selector`, `taps`, `table`, `task`, `linear` or `outputs`."""
    temperature: float = pydantic.Field(default=1.0, gt=0)
    """Temperature of the softmax (kind selector; the other kinds have none, and refuse any but 1)."""
    own_logit: float | None = None
    """Starting logit of an owned adapter (kind selector); by default such that the owned adapters get `own_weight`."""
    other_logit: float = 0.0
    """Starting logit of all other adapters (kind selector)."""
    own_weight: float = pydantic.Field(default=0.9, gt=0, lt=1)
    """Starting weight of the owned adapters together, where `own_logit` is not given (kind selector)."""
    num_owned: int = pydantic.Field(default=1, ge=1)
    """Adapters that a task owns: its own and the next ones, wrapping around (kinds one_hot, selector, taps). Of N > 2 task adapters
    at most N - 1; of two, and as a lone task, it owns one, even where this is 2: owning all would tell no two tasks apart."""
    granularity: Literal["token", "sequence"] = "sequence"
    """What a `linear` gate reads: each token's state, or the mean over the row's tokens."""
    over: Literal["shared", "all"] = "all"
    """Re-weigh all adapters, or keep stage 1's weights for task adapters and weigh the shared ones only (task, linear)."""
    top_k: int | None = pydantic.Field(default=None, ge=1)
    """Keep only the k largest weights over task adapters, renormalised (kinds selector, task, linear; a gate needs over: all)."""
    threshold: float = pydantic.Field(default=0.1, gt=0, le=1)
    """A task uses its own adapters at a site whose score is at least this (kind taps)."""
    start: float = pydantic.Field(default=0.15, ge=0, le=1)
    """Starting score (kind taps); at least `threshold`, or no adapter would ever be used."""

    @pydantic.field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        return known(GATES, kind)


class MTASettings(Settings):
    """The Mixture-of-Task-Adapters module."""

    adapter: AdapterSettings = AdapterSettings()
    """The adapters."""
    num_adapters: int | None = pydantic.Field(default=None, ge=1)
    """Number of task adapters, at most and by default one per task. With fewer, task t owns adapter t modulo this number."""
    num_shared: int = pydantic.Field(default=2, ge=0)
    """Number of shared adapters."""
    sites: Literal["all", "last", "none"] | str | list[int] = "all"
    """Which FFNs carry an MTA: `all`, `last`, `every-2` (each second one, counted from the last) or a list of positions. `none`: no
    FFN, so that the backbone and its heads are all there is: plain fine-tuning, a baseline of `alter compare`."""
    selector: GateSettings
    """How stage 1 weighs the adapters of a task."""
    gate: GateSettings
    """How stage 2 weighs task adapters and shared adapters."""

    @pydantic.field_validator("sites")
    @classmethod
    def _known_sites(cls, sites: Any) -> Any:
        if isinstance(sites, str) and sites not in ("all", "last", "none"):
            every, _, number = sites.partition("-")
            if every != "every" or not number.isdecimal() or int(number) < 1:
                raise ValueError("must be all, last, none, every-K (e.g. every-2) or a list of positions")
        if isinstance(sites, list) and (not sites or len(set(sites)) != len(sites)):
            raise ValueError("a list of sites needs at least one position, each once")
        return sites


class PartSettings(Settings):
    """One of the models that a merged model is made of: its tasks are weighed by its own selector and gate."""

    name: str
    """The part's name: its recipe's."""
    num_tasks: int = pydantic.Field(ge=1)
    """Its tasks, which follow those of the parts before it."""
    num_adapters: int = pydantic.Field(ge=1)
    """Its task adapters, likewise."""
    num_shared: int = pydantic.Field(ge=0)
    """Its shared adapters, likewise."""
    router: Literal["selector", "gate"]
    """What weighs its adapters: selector (stage 1 was released) or gate (stage 2)."""
    selector: GateSettings
    """Its selector."""
    gate: GateSettings
    """Its gate."""


def reads_selector(gate: GateSettings) -> bool:
    """Whether a gate passes the selector's weights on, as they are (`over: shared`) or scaled (`outputs`)."""
    return gate.kind == "outputs" or (gate.kind in ("task", "linear") and gate.over == "shared")


def check_mta(mta: MTASettings, *, num_tasks: int) -> None:
    """Refuse settings of an MTA that do not fit each other or the number of tasks.

    Raises:
        ValueError: with the setting, the value seen and the remedy.
    """
    _check_kinds(mta)
    _check_num_adapters(mta, num_tasks)
    for role, settings in (("selector", mta.selector), ("gate", mta.gate)):
        _check_read(role, settings)
    alike = (mta.num_adapters or num_tasks) > 1 and mta.selector.kind in ALIKE
    if alike and mta.adapter.kind in COPIES:
        raise ValueError(
            f"mta.selector.kind is {mta.selector.kind}, which weighs all adapters alike at the start, but mta.adapter.kind "
            f"{mta.adapter.kind} starts them equal, so that they would stay equal; allowed: {', '.join(sorted(OWNERS))}. "
            f"Set mta.selector.kind: selector, or mta.adapter.kind: lora"
        )
    if mta.adapter.kind in MERGED:
        _check_merged(mta, num_task_adapters=mta.num_adapters or num_tasks)


def _check_merged(mta: MTASettings, *, num_task_adapters: int) -> None:
    """Refuse weights under which adapters whose parameters are mixed would all learn the same, or nothing."""
    kind = mta.adapter.kind
    if mta.selector.kind == "uniform" and num_task_adapters > 1:
        raise ValueError(
            f"mta.selector.kind is uniform, and mta.adapter.kind {kind} mixes parameters, so that equal weights make all adapters one; set "
            f"mta.num_adapters: 1, mta.selector.kind: one_hot, or mta.adapter.kind: bottleneck"
        )
    if (mta.gate.kind == "uniform" and mta.num_shared > 1) or (mta.gate.kind == "adamix" and mta.num_shared > 0):
        raise ValueError(
            f"mta.gate.kind is {mta.gate.kind}, mta.num_shared {mta.num_shared} and mta.adapter.kind {kind}, which mixes parameters: "
            f"shared adapters start as nothing, and {'would stay equal' if mta.gate.kind == 'uniform' else 'drawn alone would stay so'}; "
            f"set mta.num_shared: 0, mta.gate.kind: table, or mta.adapter.kind: bottleneck"
        )


def _check_kinds(mta: MTASettings) -> None:
    selector, gate, num_shared = mta.selector.kind, mta.gate.kind, mta.num_shared
    if selector in ONLY_GATES:
        allowed = ", ".join(name for name in GATES.names() if name not in ONLY_GATES)
        raise ValueError(
            f"mta.selector.kind is {selector}, which weighs what a selector has mixed; allowed: {allowed}. "
            f"Use {selector} as mta.gate.kind"
        )
    if num_shared == 0 and gate == "outputs":
        raise ValueError("mta.gate.kind outputs weighs shared adapters, but mta.num_shared is 0; raise it, or use kind task")
    if num_shared > 0 and gate in OWNERS:
        raise ValueError(
            f"mta.gate.kind {gate} gives shared adapters no weight, but mta.num_shared is {num_shared}; "
            f"set mta.num_shared: 0, or use kind task"
        )


def _check_num_adapters(mta: MTASettings, num_tasks: int) -> None:
    given = mta.num_adapters
    if given is not None and given > num_tasks:
        raise ValueError(
            f"mta.num_adapters is {given}, but the recipe has {counted(num_tasks, 'task')} to own them; "
            f"lower it, or leave it out for one per task"
        )
    if given is None and num_tasks == 1:
        return  # a lone task owns the one adapter, whatever its preset says of several tasks
    num_adapters = given or num_tasks
    most = num_adapters - 1 if num_adapters > 2 else num_adapters
    for role, settings in (("selector", mta.selector), ("gate", mta.gate)):
        if settings.kind in OWNERS and settings.num_owned > most:
            raise ValueError(
                f"mta.{role}.num_owned is {settings.num_owned}, but there are {num_adapters} task adapters; "
                f"lower it to at most {most}"
            )


def _check_read(role: str, settings: GateSettings) -> None:
    """Refuse a setting that the chosen kind does not read."""
    kind = settings.kind
    if settings.top_k is not None and kind in NO_TOP_K:
        raise ValueError(
            f"mta.{role}.top_k is {settings.top_k}, but kind {kind} does not read it; leave it out, or use kind selector, task or "
            f"linear"
        )
    if settings.top_k is not None and role == "gate" and kind in ("task", "linear") and settings.over == "shared":
        raise ValueError(
            f"mta.gate.top_k is {settings.top_k}, but over: shared keeps stage 1's weights on task adapters; "
            f"set mta.gate.over: all, or leave top_k out"
        )
    if settings.temperature != 1.0 and kind in NO_TEMPERATURE:
        raise ValueError(
            f"mta.{role}.temperature is {settings.temperature}, but kind {kind} does not read it; "
            f"set mta.{role}.temperature: 1.0, or use kind selector"
        )
    for name in ("threshold", "start"):
        value, standard = getattr(settings, name), GateSettings.model_fields[name].default
        if value != standard and kind in NO_SCORES:
            raise ValueError(f"mta.{role}.{name} is {value}, but kind {kind} does not read it; leave it out, or use kind taps")
    if kind == "taps" and settings.start < settings.threshold:
        raise ValueError(
            f"mta.{role}.start is {settings.start}, below its threshold {settings.threshold}: no adapter would be used, and one that is "
            f"not used does not learn; raise start to at least {settings.threshold}"
        )


def known(registry: Registry, name: str) -> str:
    """Return a plug-in's name, or refuse one that is unknown as pydantic wants it.

    Raises:
        ValueError: it is unknown.
    """
    try:
        return registry.check(name)
    except PluginError as error:
        raise ValueError(str(error)) from None
