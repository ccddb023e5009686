from __future__ import annotations

import torch
from tests.tiny import tiny_tokenizer

from alter.data.batch import batches_by_length, collate
from alter.data.codec import Codec
from alter.data.encode import Features


def row(*ids: int, task_id: int = 0, label_id: int = 0, target: float = 0.0) -> Features:
    inputs = {"input_ids": list(ids), "token_type_ids": [1] * len(ids)}
    return Features(task_id=task_id, inputs=inputs, label_id=label_id, target=target)


def test_rows_of_any_tasks_are_padded_to_the_longest() -> None:
    batch = collate(
        [row(2, 9, 3, task_id=1, label_id=4), row(2, 3, task_id=0, label_id=-100, target=0.5)], Codec(tokenizer=tiny_tokenizer())
    )
    assert batch.inputs["input_ids"].tolist() == [[2, 9, 3], [2, 3, 0]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.inputs["token_type_ids"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.task_ids_B.tolist() == [1, 0]
    assert batch.label_ids_B.tolist() == [4, -100]
    assert batch.targets_B.tolist() == [0.0, 0.5]
    assert batch.targets_B.dtype == torch.float32


def test_padding_goes_to_the_tokenizer_s_side() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    batch = collate([row(2, 9, 3), row(2, 3)], Codec(tokenizer=tokenizer))
    assert batch.inputs["input_ids"].tolist() == [[2, 9, 3], [0, 2, 3]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]


def test_padding_uses_the_tokenizer_s_own_ids() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "[MASK]"
    tokenizer._pad_token_type_id = 7  # XLNet's tokenizer sets its own in the same way
    batch = collate([row(2, 9, 3), row(2, 3)], Codec(tokenizer=tokenizer))
    assert batch.inputs["input_ids"].tolist()[1] == [2, 3, 4]
    assert batch.inputs["token_type_ids"].tolist()[1] == [1, 1, 7]


def test_a_batch_moves_as_a_whole() -> None:
    moved = collate([row(2, 3)], Codec(tokenizer=tiny_tokenizer())).to(torch.device("meta"))
    tensors = [*moved.inputs.values(), moved.task_ids_B, moved.label_ids_B, moved.targets_B]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_batches_hold_rows_of_similar_length_longest_first_and_every_row_once() -> None:
    rows = [row(*range(length)) for length in (3, 9, 1, 9, 5)]
    batches = list(batches_by_length(rows, 2))
    assert batches == [[1, 3], [4, 0], [2]]
    assert sorted(position for batch in batches for position in batch) == list(range(5))
    assert list(batches_by_length([], 2)) == []
