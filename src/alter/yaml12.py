"""YAML as people expect it (version 1.2): `no` is text, `1e-3` a number, `010` ten, and a key stands once.

PyYAML reads version 1.1, where a label `no` is false, `1:30` is ninety and the first of two equal keys is lost in silence. What
`dump_yaml` writes reads the same in both versions.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

# kind -> (pattern, the characters a scalar of this kind starts with)
_SCALARS = {
    "bool": (r"^(?:true|false|True|False)$", "tfTF"),
    "int": (r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    "float": (
        r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$",
        "-+0123456789.",
    ),
}
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Safe (no tags that build objects), and every mistake is a `YAMLError` with its line."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse a key that stands twice; here, before `<<` lays one mapping under another."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                problem = f"the key '{key.value}' stands twice, first in line {first}; keep one of the two"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[key.tag, key.value] = key.start_mark.line + 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Turn what PyYAML leaks on an impossible date or number into its own kind of error."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError):
            problem = (
                f"'{str(node.value)[:60]}' is no {node.tag.removeprefix(_TAG)}; mend it, or write it in quotes if it is text"
            )
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a whole number: decimal whatever its zeros, `0x` and `0o`; no base 60, no underscores."""
        text = str(self.construct_scalar(node))
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))


class _Dumper(yaml.SafeDumper):
    """Quotes all text that either version of YAML would read as something else."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in {*_SCALARS, "value"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
for _kind, (_pattern, _firsts) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(_pattern), list(_firsts))


def read_yaml(text: str) -> Any:
    """Parse YAML 1.2 scalars, mappings and lists; no tags that build objects.

    Raises:
        yaml.YAMLError: not valid YAML, a key that stands twice, an impossible number or date, or an alias inside what it names.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
        _refuse_loops(content, set(), set())
    except RecursionError:
        raise yaml.YAMLError("nested too deeply; a recipe needs a few levels only") from None
    return content


def dump_yaml(content: Any) -> str:
    """Return plain values as YAML, keys in their order; `read_yaml` gives them back as they are."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _refuse_loops(value: Any, above: set[int], seen: set[int]) -> None:
    """Refuse a list or mapping that holds itself (`a: &a [*a]`); one that is only used twice is fine."""
    if id(value) in above:
        raise yaml.YAMLError("an alias (*name) stands inside the value that it names; write the value out")
    if not isinstance(value, dict | list) or id(value) in seen:
        return
    above.add(id(value))
    for item in value.values() if isinstance(value, dict) else value:
        _refuse_loops(item, above, seen)
    above.remove(id(value))
    seen.add(id(value))
