"""The plain questions that a comparison answers, each a difference of two arms."""

from __future__ import annotations

from collections.abc import Collection

from alter.comparing.arms import ARMS, OUTSIDE, has_stage2
from alter.comparing.choice import main_arm
from alter.recipe import Recipe

Question = tuple[str, str, str]


def questions(recipe: Recipe, arms: Collection[str]) -> list[Question]:
    """Return (question, arm, the arm it is held against) of those questions whose arms are there."""
    method, own = main_arm(recipe), own_of(arms)
    other = "alter" if method == "alter-lite" else "alter-lite"
    asked: list[Question] = [
        ("Is one model as good as one fine-tuned model a task?", method, "single-full"),
        ("Is it better than one fine-tuned model for all tasks?", method, "multi-full"),
        ("Is it better than a LoRA a task, each trained alone?", method, "single-lora"),
        ("Is it better than one LoRA of the same size for all tasks?", method, "shared-lora"),
        ("Is it better than TF-IDF and a linear model?", method, "tfidf"),
        ("Is it better than the other preset?", method, other),
    ]
    if has_stage2(recipe):
        asked += [
            ("Does stage 2 help?", method, "stage1"),
            ("Does stage 2 help more than as many epochs of stage 1?", method, "stage1-longer"),
            ("Does stage 2 help more than task adapters that train on alone?", method, "stage2-alone"),
            ("Do two stages help more than one with everything in it?", method, "one-go"),
            ("Do shared adapters carry anything?", method, "zeroed-shared"),
        ]
    asked += [
        ("Do the learned weights carry anything, against equal ones?", method, "uniform-weights"),
        ("Do the learned weights carry anything, against random ones?", method, "random-weights"),
        ("Does the task's name carry anything, against none?", method, "no-task"),
        ("Does the task's name carry anything, against another's?", method, "wrong-task"),
    ]
    asked += [
        (f"Is the recipe's gate better than {arm}?", method, arm)
        for arm in arms
        if (arm.startswith("gate-") or arm == "mutual-information") and arm not in own
    ]
    asked.append(("Is it better than adapters at the sites that each task learns to need?", method, "taps"))
    asked.append(("Is it better than a random adapter at each step, averaged?", method, "adamix"))
    asked.append(("Is it better than adapters made of the task's embedding?", method, "hyperformer"))
    asked += [
        (f"Is it better than {arm}?", method, arm) for arm in arms if arm.startswith(("peft-", "adapters-")) and arm not in own
    ]
    for arm in own:
        asked += [
            (f"Is {arm} better than one fine-tuned model a task?", arm, "single-full"),
            (f"Is {arm} better than one fine-tuned model for all tasks?", arm, "multi-full"),
            (f"Is {arm} better than the recipe as it stands?", arm, method),
        ]
    return [(text, arm, against) for text, arm, against in asked if arm in arms and against in arms]


def own_of(arms: Collection[str]) -> list[str]:
    """Return the user's own arms: those that no table of arms has."""
    ours = {arm.name for arm in (*ARMS, *OUTSIDE)}
    return [arm for arm in arms if arm not in ours]
