"""One root for every error a user can mend, and the hint that ends a message."""

from __future__ import annotations

import re

from alter import errors
from alter.errors import AlterError, counted, did_you_mean

LEAVES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, AlterError) and value is not AlterError
]


def test_every_error_stands_under_the_one_root_and_exits_with_2() -> None:
    assert len(LEAVES) >= 7
    for error in LEAVES:
        assert error.__bases__ == (AlterError,), "one level deep, as drawn"
        assert error("what").exit_code == 2
        assert str(error("what")) == "what"
        assert error.__doc__


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
    assert drawn == {error.__name__ for error in LEAVES} | {"AlterError"}


def test_built_in_errors_are_not_ours() -> None:
    assert not issubclass(ValueError, AlterError)
    assert not issubclass(AlterError, ValueError | KeyError | OSError)


def test_did_you_mean_lists_sorted_names_and_the_nearest() -> None:
    assert did_you_mean("acuracy", ["f1", "accuracy"]) == "allowed: accuracy, f1. Did you mean 'accuracy'?"


def test_did_you_mean_gives_no_far_fetched_hint() -> None:
    assert did_you_mean("zzz", ["f1", "accuracy"]) == "allowed: accuracy, f1."
    assert did_you_mean("", ["f1"]) == "allowed: f1."
    assert did_you_mean("x", []) == "allowed: none."


def test_did_you_mean_cuts_a_long_list_but_still_finds_the_nearest() -> None:
    hint = did_you_mean("task_288x", (f"task_{number:03}" for number in range(300)))
    assert hint.count(",") == 40
    assert ", ...." in hint
    assert hint.endswith("Did you mean 'task_288'?")


def test_did_you_mean_bears_a_capital_letter() -> None:
    assert "Did you mean 'accuracy'?" in did_you_mean("Accuracy", ["accuracy", "lora", "pearson"])


def test_did_you_mean_sees_through_capital_letters() -> None:
    assert "Did you mean 'pearson'?" in did_you_mean("PEARSON", ["accuracy", "lora", "pearson"])


def test_did_you_mean_returns_what_its_docstring_shows() -> None:
    shown = re.findall(r"`(.*?)`", did_you_mean.__doc__ or "")[0]
    assert shown == did_you_mean("aa", ["a", "b"])


def test_of_names_that_differ_in_capital_letters_alone_the_nearest_is_meant() -> None:
    assert did_you_mean("Yess", ["YES", "yes", "Yes"]).endswith("Did you mean 'Yes'?")


def test_one_is_counted_as_one_and_everything_else_as_many() -> None:
    assert [counted(number, "row") for number in (0, 1, 2, 1200)] == ["0 rows", "1 row", "2 rows", "1,200 rows"]
    assert [counted(number, "row names", "rows name") for number in (1, 2)] == ["1 row names", "2 rows name"]
