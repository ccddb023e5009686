"""alter: turn one small language model into one multi-task learner with Mixture-of-Task-Adapters (ALTER, arXiv 2309.11042).

    run = alter.train("recipe.yaml", output_dir="runs/x")
    predictor = alter.load("runs/x")
    predictor.predict("intent", ["the app crashes when I open the calendar"])

Importing this module loads neither torch nor transformers; the first use of a name does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alter.version import __version__

if TYPE_CHECKING:
    from alter.check import validate
    from alter.combining.run import merge
    from alter.errors import AlterError
    from alter.extracting.run import extract
    from alter.model import MTAModel, equip
    from alter.predict import Prediction, Predictor, load
    from alter.pretraining.run import pretrain
    from alter.recipe import Recipe, load_recipe
    from alter.results import Results
    from alter.score import evaluate_model as evaluate
    from alter.tasks.spec import TaskSpec
    from alter.training.run import Run, train

_HOMES = {
    "AlterError": "alter.errors:AlterError",
    "MTAModel": "alter.model:MTAModel",
    "Prediction": "alter.predict:Prediction",
    "Predictor": "alter.predict:Predictor",
    "Recipe": "alter.recipe:Recipe",
    "Results": "alter.results:Results",
    "Run": "alter.training.run:Run",
    "TaskSpec": "alter.tasks.spec:TaskSpec",
    "equip": "alter.model:equip",
    "evaluate": "alter.score:evaluate_model",
    "extract": "alter.extracting.run:extract",
    "load": "alter.predict:load",
    "load_recipe": "alter.recipe:load_recipe",
    "merge": "alter.combining.run:merge",
    "pretrain": "alter.pretraining.run:pretrain",
    "train": "alter.training.run:train",
    "validate": "alter.check:validate",
}

__all__ = [
    "AlterError",
    "MTAModel",
    "Prediction",
    "Predictor",
    "Recipe",
    "Results",
    "Run",
    "TaskSpec",
    "__version__",
    "equip",
    "evaluate",
    "extract",
    "load",
    "load_recipe",
    "merge",
    "pretrain",
    "train",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'alter' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
