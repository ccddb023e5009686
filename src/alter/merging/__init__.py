"""Merge methods by their usual names, one file each: several models' changes of one base become one change.

A task vector is what a model changed: name -> its tensor minus the base's. The merged model is the base plus the merged vector. A
method file defines a settings class, named `SETTINGS`, and a pure function:

    merge(vectors, settings) -> yields (name, merged tensor), name by name
    merge(vectors, settings, statistics) -> the same, of a method that needs numbers of each model's data

`vectors` is one mapping a model, all with the same names and shapes (`alter.merging._vectors`). Tensors are computed in float64, one
name at a time: a mapping may read its tensors from disk when they are asked for, so that no model is ever whole in memory.

A file may say more about its method, by constants:

    NEEDS_BASE = False       the merged model does not depend on the base: coefficients sum to one; by default it does
    STATISTICS = "..."       what `statistics` holds, one mapping a model from the same names
"""

from __future__ import annotations

from alter.registry import Registry

MERGE_METHODS = Registry("merge method", package="alter.merging", attribute="merge")
