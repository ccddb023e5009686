"""Pretrained models and where their FFN sites are, one file per family: presence registers.

A family file is named after the family and defines `FAMILY` (see `_family.py`); files whose name starts with `_` are none:
`_family.py` the contract, `_find.py` model -> family and sites, `_heuristic.py` the same for a model that no family covers,
`_package.py` and `_load.py` a base model by its name. The other `_` files are FFN layouts that several families share.
"""

from alter.registry import Registry

__all__ = ["FAMILIES"]

FAMILIES = Registry("backbone family", package="alter.backbones", attribute="FAMILY")
