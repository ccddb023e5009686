from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from alter.pretraining.corrupt import Example, Noise, corrupt, infill, noise_mask, permuted, spans_of

EOS = 1
SENTINELS = list(range(1000, 1040))


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def slow_mask(length: int, noise: Noise, seed: int) -> list[bool]:
    """T5's random_spans_noise_mask in plain steps: divide masked and other tokens into equally many runs, and lay them in turns."""
    masked, spans = noise.counts(length)
    chance = rng(seed)

    def divide(total: int) -> list[int]:
        cuts = sorted(chance.permutation(total - 1)[: spans - 1] + 1)
        return [end - start for start, end in itertools.pairwise([0, *cuts, total])]

    noisy, plain = divide(masked), divide(length - masked)
    return [
        kind for pair in zip(plain, noisy, strict=True) for kind, run in zip((False, True), pair, strict=True) for _ in range(run)
    ]


def slow_corrupt(ids: list[int], mask: list[bool]) -> Example:
    """Token by token: a sentinel where a masked span begins."""
    inputs: list[int] = []
    target: list[int] = []
    number = 0
    for position, (token, masked) in enumerate(zip(ids, mask, strict=True)):
        if not masked:
            inputs.append(token)
            continue
        if position == 0 or not mask[position - 1]:
            inputs.append(SENTINELS[number])
            target.append(SENTINELS[number])
            number += 1
        target.append(token)
    return Example([*inputs, EOS], [*target, SENTINELS[number], EOS])


def restored(example: Example) -> list[int]:
    """Put the target's spans where the input has their sentinels."""
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in example.labels[:-1]:
        current = spans.setdefault(token, []) if token in SENTINELS else [*current, token]
        if token not in SENTINELS:
            spans[list(spans)[-1]].append(token)
    return [kept for token in example.input_ids[:-1] for kept in (spans[token] if token in SENTINELS else [token])]


@pytest.mark.parametrize("length", [2, 3, 7, 20, 64, 250])
@pytest.mark.parametrize("noise", [Noise(0.15, 3.0), Noise(0.5, 1.0), Noise(0.9, 8.0), Noise(0.01, 3.0)])
def test_masks_and_examples_equal_a_plain_slow_reference_and_rebuild_the_block(length: int, noise: Noise) -> None:
    for seed in range(10):
        mask = noise_mask(length, noise, rng(seed))
        assert mask.tolist() == slow_mask(length, noise, seed)
        if len(spans_of(mask)) >= len(SENTINELS):
            continue
        ids = list(range(2, 2 + length))
        example = corrupt(ids, mask, sentinels=SENTINELS, eos=EOS)
        assert example == slow_corrupt(ids, mask.tolist())
        assert restored(example) == ids


def test_a_mask_has_the_wished_density_and_spans_and_begins_unmasked_and_ends_masked() -> None:
    for seed in range(50):
        mask = noise_mask(512, Noise(0.15, 3.0), rng(seed))
        assert mask.sum() == round(512 * 0.15)
        assert len(spans_of(mask)) == round(round(512 * 0.15) / 3)
        assert not mask[0]
        assert mask[-1]


def test_all_divisions_are_about_equally_frequent() -> None:
    # 6 masked of 12 in 3 spans: 10 ways to divide the masked ones, 10 to divide the others.
    seen = collections.Counter(tuple(noise_mask(12, Noise(0.5, 2.0), rng(seed)).tolist()) for seed in range(10_000))
    assert len(seen) == 100
    assert min(seen.values()) > 50
    assert max(seen.values()) < 160


def test_the_same_seed_masks_alike_and_another_does_not() -> None:
    noise = Noise(0.15, 3.0)
    assert noise_mask(100, noise, rng(3)).tolist() == noise_mask(100, noise, rng(3)).tolist()
    assert noise_mask(100, noise, rng(3)).tolist() != noise_mask(100, noise, rng(4)).tolist()


def test_a_lone_token_is_masked() -> None:
    example = corrupt([7], noise_mask(1, Noise(0.15, 3.0), rng(0)), sentinels=SENTINELS, eos=EOS)
    assert example == Example([1000, EOS], [1000, 7, 1001, EOS])


@pytest.mark.parametrize("length", [2, 7, 64])
def test_infilling_leaves_one_mask_for_each_span(length: int) -> None:
    for seed in range(10):
        mask = noise_mask(length, Noise(0.4, 3.0), rng(seed))
        ids = list(range(2, 2 + length))
        slow: list[int] = []
        for place, (token, masked) in enumerate(zip(ids, mask.tolist(), strict=True)):
            if not masked:
                slow.append(token)
            elif place == 0 or not mask[place - 1]:
                slow.append(-7)
        assert infill(ids, mask, mask_id=-7) == slow


def test_sentences_are_shuffled_whole() -> None:
    words = ["a", "b.", "c.", "d", "e", "f.", "g", "h"]
    ends = [word.endswith(".") for word in words]
    orders = {" ".join(words[place] for place in permuted(ends, rng(seed))) for seed in range(300)}
    assert len(orders) == 24  # four sentences, each order of them
    assert "g h d e f. a b. c." in orders
    assert all(sorted(order.split()) == sorted(words) and "d e f." in order for order in orders)
    assert permuted([False], rng(0)) == [0]
    assert permuted([True], rng(0)) == [0]
