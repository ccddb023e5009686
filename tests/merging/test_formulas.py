"""Every merge method: small cases computed by hand, a slow reference, and what must hold whatever the numbers are."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.merging import reference

from alter.errors import ConfigError, PluginError
from alter.merging import MERGE_METHODS
from alter.merging._method import method_of
from alter.merging._trim import drop_at_random, keep_largest
from alter.merging._vectors import Changed, TaskVector
from alter.merging.metagpt import coefficients

SHAPES = {"layer.weight": (4, 3), "layer.bias": (4,), "scale": ()}
WITH_STATISTICS = ("fisher", "regmean")
each_method = pytest.mark.parametrize("name", MERGE_METHODS.names())


def random_vectors(number: int = 3, *, seed: int = 0) -> list[TaskVector]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
        for _ in range(number)
    ]


def statistics_for(name: str, number: int = 3, *, seed: int = 5) -> list[TaskVector]:
    """Return random statistics that fit `random_vectors`; Gram matrices of more rows than inputs."""
    generator = torch.Generator().manual_seed(seed)
    if name == "fisher":
        return [{key: torch.rand(shape, generator=generator) for key, shape in SHAPES.items()} for _ in range(number)]
    inputs = [torch.randn(9, 3, generator=generator, dtype=torch.float64) for _ in range(number)]
    return [{"layer.weight": x.T @ x} for x in inputs] if name == "regmean" else []


def merged(
    name: str, vectors: Sequence[TaskVector], *, statistics: Sequence[TaskVector] = (), **settings: Any
) -> dict[str, torch.Tensor]:
    return dict(method_of(name, settings).merge(vectors, statistics=statistics))


def merged_values(name: str, *vectors: list[float], **settings: Any) -> list[float]:
    """Merge vectors of one tensor."""
    found = merged(name, [{"w": torch.tensor(vector, dtype=torch.float64)} for vector in vectors], **settings)
    values: list[float] = found["w"].tolist()
    return values


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_average_by_hand() -> None:
    assert merged_values("average", [1.0, -2.0], [3.0, 4.0]) == [2.0, 1.0]
    assert merged_values("average", [1.0, -2.0], [3.0, 4.0], weights=[3, 1]) == [1.5, -0.5]


def test_task_arithmetic_by_hand() -> None:
    assert merged_values("task_arithmetic", [1.0, -2.0], [3.0, 4.0], scale=0.5) == [2.0, 1.0]
    assert merged_values("task_arithmetic", [1.0], [2.0]) == pytest.approx([0.9])


def test_ties_by_hand() -> None:
    # density 0.6 of 5 entries keeps 3: [5, -4, 0, 3, 0], [-1, -2, 0, 0, 6], [2, 0, 0, -7, 1]
    vectors = ([5.0, -4.0, 1.0, 3.0, 0.5], [-1.0, -2.0, 0.5, 0.1, 6.0], [2.0, 0.0, 0.0, -7.0, 1.0])
    # sums 6, -6, 0, -4, 7; the mean over what has the sum's sign: (5 + 2) / 2, (-4 - 2) / 2, nobody, -7 alone, (6 + 1) / 2
    assert merged_values("ties", *vectors, density=0.6) == [3.5, -3.0, 0.0, -7.0, 3.5]
    assert merged_values("ties", *vectors, density=0.6, scale=2.0) == [7.0, -6.0, 0.0, -14.0, 7.0]


def test_ties_trims_over_the_whole_model_and_not_each_tensor() -> None:
    large, small = {"a": torch.tensor([9.0, 8.0]), "b": torch.tensor([1.0, 2.0])}, {"a": torch.zeros(2), "b": torch.zeros(2)}
    found = merged("ties", [large, small], density=0.5)
    assert found["a"].tolist() == [9.0, 8.0]
    assert found["b"].tolist() == [0.0, 0.0]


def test_ties_keeps_at_least_one_entry_and_all_that_are_as_large() -> None:
    assert merged_values("ties", [1.0, -3.0, 2.0], density=0.01) == [0.0, -3.0, 0.0]
    assert merged_values("ties", [3.0, -3.0, 2.0], density=0.01) == [3.0, -3.0, 0.0]


def test_an_entry_whose_sum_is_zero_is_not_changed() -> None:
    assert merged_values("ties", [2.0, 1.0], [-2.0, 1.0], density=1) == [0.0, 1.0]


def test_dare_by_hand() -> None:
    vector: TaskVector = {"w": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])}
    [left] = drop_at_random([vector], 0.25, seed=1)
    kept = [entry != 0 for entry in left["w"].tolist()]
    assert any(kept)
    assert not all(kept)
    values = [entry / 0.25 if keep else 0.0 for entry, keep in zip(range(1, 7), kept, strict=True)]
    assert merged("dare", [vector], density=0.25, scale=0.5, seed=1)["w"].tolist() == [0.5 * value for value in values]
    assert merged("dare_ties", [vector], density=0.25, seed=1)["w"].tolist() == values


def test_metagpt_by_hand() -> None:
    # squared lengths 9 + 16 = 25 and 75: lambda = 0.25 and 0.75
    vectors: list[TaskVector] = [
        {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])},
        {"a": torch.tensor([5.0]), "b": torch.tensor([50.0**0.5], dtype=torch.float64)},
    ]
    assert coefficients(vectors).tolist() == pytest.approx([0.25, 0.75])
    found = merged("metagpt", vectors)
    assert float(found["a"]) == pytest.approx(0.25 * 3 + 0.75 * 5)
    assert float(found["b"]) == pytest.approx(0.25 * 4 + 0.75 * 50**0.5)


def test_metagpt_takes_the_lengths_of_what_trimming_leaves() -> None:
    # of 4 entries 2 are kept: [3, 0, 4, 0] of squared length 25, and [0, 5, 0, 10] of squared length 125
    found = merged_values("metagpt", [3.0, 1.0, 4.0, 2.0], [1.0, 5.0, 0.0, 10.0], trim="ties", density=0.5)
    first, second = 25 / 150, 125 / 150
    assert found == pytest.approx([3 * first, 5 * second, 4 * first, 10 * second])


def test_metagpt_of_models_that_are_the_base() -> None:
    assert merged_values("metagpt", [0.0, 0.0], [0.0, 0.0]) == [0.0, 0.0]


def test_fisher_by_hand() -> None:
    statistics = [{"w": torch.tensor([3.0, 0.0, 0.0])}, {"w": torch.tensor([1.0, 2.0, 0.0])}]
    # (3 * 1 + 1 * 5) / 4, the second alone, and the mean where nobody cares
    assert merged_values("fisher", [1.0, 7.0, 2.0], [5.0, -1.0, 4.0], statistics=statistics) == [2.0, -1.0, 3.0]


def test_regmean_by_hand() -> None:
    # One output, two inputs that never meet: each column is the mean weighed by its diagonal entry.
    weights: list[TaskVector] = [
        {"w": torch.tensor([[1.0, 10.0]]), "bias": torch.tensor([1.0])},
        {"w": torch.tensor([[5.0, 20.0]]), "bias": torch.tensor([2.0])},
    ]
    grams = [{"w": torch.diag(torch.tensor([3.0, 1.0]))}, {"w": torch.diag(torch.tensor([1.0, 1.0]))}]
    found = merged("regmean", weights, statistics=grams)
    assert found["w"].tolist()[0] == pytest.approx([(3 * 1 + 5) / 4, 15.0])
    assert found["bias"].tolist() == [1.5]


def test_regmean_shrinks_what_is_off_the_diagonal() -> None:
    # alpha 0 leaves the diagonals 2 and 2: the mean, whatever the inputs had in common
    grams = [{"w": torch.tensor([[2.0, 1.5], [1.5, 2.0]])}, {"w": torch.tensor([[2.0, -1.0], [-1.0, 2.0]])}]
    vectors: list[TaskVector] = [{"w": torch.tensor([[1.0, 3.0]])}, {"w": torch.tensor([[3.0, -3.0]])}]
    assert merged("regmean", vectors, statistics=grams, alpha=0.0)["w"].tolist()[0] == pytest.approx([2.0, 0.0])
    assert merged("regmean", vectors, statistics=grams, alpha=1.0)["w"].tolist()[0] != pytest.approx([2.0, 0.0])


def test_regmean_gives_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(20, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    vectors = [{"w": torch.randn(2, 3, generator=generator, dtype=torch.float64)} for _ in range(2)]
    found = merged("regmean", vectors, statistics=[{"w": x.T @ x} for x in inputs], alpha=1.0)["w"]
    wanted = torch.cat([x @ vector["w"].T for x, vector in zip(inputs, vectors, strict=True)])
    torch.testing.assert_close(found.T, torch.linalg.lstsq(torch.cat(inputs), wanted).solution)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_regmean_of_inputs_that_leave_directions_open_is_their_mean_there(alpha: float) -> None:
    grams = [{"w": torch.tensor([[1.0, 0.0], [0.0, 0.0]])}] * 2
    vectors: list[TaskVector] = [{"w": torch.tensor([[1.0, 5.0]])}, {"w": torch.tensor([[3.0, 7.0]])}]
    found = merged("regmean", vectors, statistics=grams, alpha=alpha)["w"]
    assert found[0].tolist() == pytest.approx([2.0, 6.0])


def test_a_number_that_is_none_is_not_trimmed_away() -> None:
    vectors: list[TaskVector] = [{"w": torch.tensor([1.0, float("nan"), 3.0])}, {"w": torch.ones(3)}]
    with pytest.raises(ConfigError, match="'w' holds NaN or infinite numbers"):
        merged("ties", vectors, density=0.5)


# ---- a slow reference ------------------------------------------------------------------------------------------------

CASES: list[tuple[str, dict[str, Any]]] = [
    ("average", {}),
    ("average", {"weights": [1.0, 0.0, 2.5]}),
    ("task_arithmetic", {}),
    ("task_arithmetic", {"scale": 1.7}),
    ("ties", {}),
    ("ties", {"density": 0.5, "scale": 0.7}),
    ("ties", {"density": 1.0}),
    ("dare", {"seed": 4}),
    ("dare", {"density": 0.9, "scale": 1.0}),
    ("dare_ties", {}),
    ("dare_ties", {"density": 0.3, "scale": 0.5, "seed": 2}),
    ("metagpt", {}),
    ("metagpt", {"trim": "ties"}),
    ("metagpt", {"trim": "dare", "density": 0.4, "seed": 8}),
    ("fisher", {}),
    ("regmean", {}),
    ("regmean", {"alpha": 0.5}),
]


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_method_gives_what_the_slow_reference_gives(name: str, settings: dict[str, Any], seed: int) -> None:
    vectors, statistics = random_vectors(seed=seed), statistics_for(name, seed=seed + 10)
    expected = getattr(reference, name)(vectors, *([statistics] if statistics else []), **settings)
    found = merged(name, vectors, statistics=statistics, **settings)
    assert list(found) == list(SHAPES)
    for key, tensor in found.items():
        assert tensor.dtype == torch.float64
        assert tensor.shape == SHAPES[key]
        assert tensor.flatten().tolist() == pytest.approx(expected[key], rel=1e-9, abs=1e-9)


def test_the_reference_has_every_method() -> None:
    assert {name for name, _ in CASES} == set(MERGE_METHODS.names())


# ---- properties ------------------------------------------------------------------------------------------------------

ALONE: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"scale": 1.0},
    "ties": {"density": 1.0},
    "dare": {"density": 1.0, "scale": 1.0},
    "dare_ties": {"density": 1.0},
}


@each_method
def test_one_model_with_weight_one_is_given_back(name: str) -> None:
    [vector] = random_vectors(1)
    found = merged(name, [vector], statistics=statistics_for(name, 1), **ALONE.get(name, {}))
    for key, tensor in vector.items():
        torch.testing.assert_close(found[key], tensor)


@each_method
def test_equal_models_give_the_model(name: str) -> None:
    [vector] = random_vectors(1)
    settings = {**ALONE.get(name, {}), **({"scale": 0.5} if name in ("task_arithmetic", "dare") else {})}
    found = merged(name, [vector, vector], statistics=statistics_for(name, 2), **settings)
    for key, tensor in vector.items():
        torch.testing.assert_close(found[key], tensor)


@pytest.mark.parametrize("name", [name for name in MERGE_METHODS.names() if not name.startswith("dare")])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_models_does_not_matter(name: str, order: tuple[int, ...]) -> None:
    vectors, statistics = random_vectors(), statistics_for(name)
    found = merged(name, vectors, statistics=statistics)
    other = merged(name, [vectors[i] for i in order], statistics=[statistics[i] for i in order] if statistics else [])
    for key, tensor in found.items():
        torch.testing.assert_close(other[key], tensor)


@each_method
def test_a_method_changes_no_input_and_answers_the_same_again(name: str) -> None:
    vectors, statistics = random_vectors(), statistics_for(name)
    found = merged(name, vectors, statistics=statistics)
    for vector, untouched in zip(vectors, random_vectors(), strict=True):
        for key, tensor in vector.items():
            assert torch.equal(tensor, untouched[key])
    for key, tensor in merged(name, vectors, statistics=statistics).items():
        assert torch.equal(tensor, found[key])


@each_method
def test_vectors_that_are_read_when_asked_for_give_the_same(name: str) -> None:
    vectors, statistics = random_vectors(), statistics_for(name)
    lazy = [Changed(vector, lambda _, tensor: tensor) for vector in vectors]
    assert len(lazy[0]) == len(SHAPES)
    found = merged(name, vectors, statistics=statistics)
    for key, tensor in merged(name, lazy, statistics=statistics).items():
        assert torch.equal(tensor, found[key])


@each_method
def test_a_method_reads_one_name_after_the_other(name: str) -> None:
    """Only what a method must know of the whole model is read first; then each tensor is asked for when its turn comes."""
    asked: list[str] = []

    def note(key: str, tensor: torch.Tensor) -> torch.Tensor:
        asked.append(key)
        return tensor

    vectors = [Changed(vector, note) for vector in random_vectors()]
    stream = method_of(name).merge(vectors, statistics=statistics_for(name))
    first, _ = next(stream)
    whole_model_first = len(SHAPES) * len(vectors) if name in ("ties", "metagpt") else 0
    assert asked[whole_model_first:] == [first] * len(vectors)


def test_ties_with_density_one_and_agreeing_signs_is_the_mean() -> None:
    vectors = [{key: tensor.abs() + 0.1 for key, tensor in vector.items()} for vector in random_vectors()]
    mean = merged("average", vectors)
    for key, tensor in merged("ties", vectors, density=1.0).items():
        torch.testing.assert_close(tensor, mean[key])


@pytest.mark.parametrize("density", [0.1, 0.34, 0.5, 0.999])
def test_trimming_keeps_the_share_it_says(density: float) -> None:
    for vector in keep_largest(random_vectors(), density):
        entries = torch.cat([vector[key].flatten() for key in vector])
        assert int((entries != 0).sum()) == max(1, int(density * 17 + 0.5))


def test_dare_is_task_arithmetic_in_expectation_over_seeds() -> None:
    vectors = random_vectors(2)
    num_seeds, density = 2000, 0.5
    total = {key: torch.zeros(shape, dtype=torch.float64) for key, shape in SHAPES.items()}
    for seed in range(num_seeds):
        for key, tensor in merged("dare", vectors, density=density, seed=seed).items():
            total[key] += tensor
    for key, tensor in merged("task_arithmetic", vectors).items():
        # an entry's variance is scale^2 sum_t tau_t^2 (1 - density) / density
        spread = 0.3 * sum(vector[key].square() for vector in vectors).sqrt() * ((1 - density) / density / num_seeds) ** 0.5
        assert bool(((total[key] / num_seeds - tensor).abs() <= 5 * spread).all())


def test_dare_drops_other_entries_with_another_seed_and_of_another_model() -> None:
    vector = {"w": torch.ones(1000, dtype=torch.float64)}
    first, second = (tuple(v["w"].tolist()) for v in drop_at_random([vector, vector], 0.5, seed=0))
    other = tuple(drop_at_random([vector], 0.5, seed=1)[0]["w"].tolist())
    assert len({first, second, other}) == 3
    assert 400 < sum(entry == 2.0 for entry in first) < 600


@pytest.mark.parametrize("number", [1, 2, 5])
def test_metagpts_coefficients_sum_to_one_and_are_the_closed_form(number: int) -> None:
    vectors = random_vectors(number, seed=number)
    found = coefficients(vectors)
    assert float(found.sum()) == pytest.approx(1.0)
    assert found.tolist() == pytest.approx(reference.shares(reference.lists_of(vectors)))


def test_metagpt_of_equally_long_vectors_is_the_average() -> None:
    lengths = [float(sum(t.square().sum() for t in vector.values())) ** 0.5 for vector in random_vectors()]
    vectors = [{k: t / length for k, t in v.items()} for v, length in zip(random_vectors(), lengths, strict=True)]
    mean = merged("average", vectors)
    for key, tensor in merged("metagpt", vectors).items():
        torch.testing.assert_close(tensor, mean[key])


@pytest.mark.parametrize("name", [name for name in MERGE_METHODS.names() if not method_of(name).needs_base])
def test_a_method_that_needs_no_base_gives_the_same_from_any(name: str) -> None:
    vectors, statistics = random_vectors(), statistics_for(name)
    [moved] = random_vectors(1, seed=9)
    found = merged(name, vectors, statistics=statistics)
    other = merged(name, [{k: v[k] + moved[k] for k in v} for v in vectors], statistics=statistics)
    for key, tensor in found.items():
        torch.testing.assert_close(other[key], tensor + moved[key])


def test_the_methods_that_need_a_base() -> None:
    assert {name for name in MERGE_METHODS.names() if not method_of(name).needs_base} == {"average", "fisher", "regmean"}


# ---- the contract of a file, and messages ----------------------------------------------------------------------------


@each_method
def test_a_file_says_what_it_is_and_explains_every_setting(name: str) -> None:
    summary = MERGE_METHODS.summaries()[name]
    assert summary.endswith(".")
    assert len(summary) <= 100
    settings = importlib.import_module(f"alter.merging.{name}").SETTINGS
    assert (settings.__doc__ or "").strip().endswith((".", "none."))
    for key, field in settings.model_fields.items():
        assert field.description, key


def test_an_unknown_method_is_told_with_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"unknown merge method 'tie'; allowed: average, dare, .*Did you mean 'ties'\?"):
        method_of("tie")


@each_method
def test_an_unknown_setting_is_one_error_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"merge method '{name}': unknown key 'densty'; allowed: ") as caught:
        method_of(name, {"densty": 0.3})
    assert "Did you mean 'density'?" in str(caught.value) or name not in ("ties", "dare", "dare_ties", "metagpt")


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("ties", {"density": 0}, r"'ties': density: .*greater than 0 \(seen: 0\)"),
        ("ties", {"density": 1.5}, r"'ties': density: .*less than or equal to 1 \(seen: 1.5\)"),
        ("ties", {"scale": "much"}, r"'ties': scale: .*valid number.*\(seen: 'much'\)"),
        ("dare", {"seed": -1}, r"'dare': seed: .*greater than or equal to 0"),
        ("average", {"weights": [1, -1]}, r"'average': weights: weights must be at least 0, and one of them above 0"),
        ("average", {"weights": [0, 0]}, r"weights must be at least 0, and one of them above 0"),
        ("metagpt", {"trim": "tie"}, r"'metagpt': trim: .*'none', 'ties' or 'dare'"),
        ("metagpt", {"density": 0.3}, r"density: trim none does not read it; leave it out, or set trim to ties or dare"),
        ("metagpt", {"trim": "ties", "seed": 1}, r"seed: trim ties does not read it; leave it out, or set trim to dare"),
        ("regmean", {"alpha": 2}, r"'regmean': alpha: .*less than or equal to 1"),
    ],
)
def test_an_impossible_setting_is_told_with_its_place(name: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        method_of(name, settings)


def test_as_many_weights_as_models() -> None:
    with pytest.raises(ConfigError, match="average: weights holds 2 numbers, and there are 3 to merge; give one number each"):
        merged("average", random_vectors(), weights=[1, 2])


@each_method
def test_vectors_that_do_not_fit_together_are_refused(name: str) -> None:
    first, second, third = ({k: v.clone() for k, v in vector.items()} for vector in random_vectors())
    statistics = statistics_for(name)
    del second["scale"]
    with pytest.raises(ConfigError, match=r"task vector 2 and task vector 1 hold different tensors, e.g. 'scale' is in one"):
        merged(name, [first, second, third], statistics=statistics)
    second["scale"] = torch.zeros(2)
    with pytest.raises(ConfigError, match=r"'scale' has the shape \(\) in task vector 1 and \(2,\) in another"):
        merged(name, [first, second, third], statistics=statistics)
    with pytest.raises(ConfigError, match="no task vectors to merge"):
        merged(name, [])


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_a_method_that_needs_statistics_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} needs .*, one for each of the 3 to merge; seen: 0; compute them first"):
        merged(name, random_vectors())


def test_a_method_that_reads_no_statistics_says_so() -> None:
    with pytest.raises(ConfigError, match="ties reads no statistics; seen: 3; leave them out"):
        merged("ties", random_vectors(), statistics=statistics_for("fisher"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: found.pop("scale"), r"fisher: 'scale' is missing in statistics 2; .* diagonal_fisher"),
        (lambda found: found.update(scale=torch.ones(3)), r"'scale' has the shape \(3,\), the model's tensor has \(\)"),
        (lambda found: found.update(scale=torch.tensor(-1.0)), "'scale' holds values below 0 or NaN"),
        (lambda found: found.update(scale=torch.tensor(float("nan"))), "'scale' holds values below 0 or NaN"),
    ],
)
def test_fisher_refuses_statistics_of_something_else(change: Any, says: str) -> None:
    statistics: list[Any] = statistics_for("fisher")
    change(statistics[1])
    with pytest.raises(ConfigError, match=says):
        merged("fisher", random_vectors(), statistics=statistics)


def test_regmean_refuses_statistics_of_something_else() -> None:
    gram = torch.eye(3)
    with pytest.raises(ConfigError, match="regmean: 'other' is in statistics 1 or in statistics 2 only"):
        merged("regmean", random_vectors(2), statistics=[{"layer.weight": gram}, {"layer.weight": gram, "other": gram}])
    with pytest.raises(
        ConfigError, match=r"no name in the statistics is one of the models' tensors, e.g. 'x' and 'layer.weight'"
    ):
        merged("regmean", random_vectors(2), statistics=[{"x": gram}, {"x": gram}])
    with pytest.raises(ConfigError, match=r"the Gram matrix of 'layer.weight' has the shape \(4, 4\).* \(4, 3\); it must be"):
        merged("regmean", random_vectors(2), statistics=[{"layer.weight": torch.eye(4)}] * 2)
    with pytest.raises(ConfigError, match=r"the Gram matrix of 'layer.bias' has the shape \(4, 4\).* \(4,\); it must be"):
        merged("regmean", random_vectors(2), statistics=[{"layer.bias": torch.eye(4)}] * 2)
