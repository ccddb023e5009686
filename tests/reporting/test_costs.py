"""What arms cost, and scores set against it: budgets, the front, the points of a chart."""

from __future__ import annotations

from pathlib import Path

from tests.reporting.by_hand import spread
from tests.reporting.folders import blocks_of, figures_of, reading_of, tables_of, write_run

from alter.comparison import Comparison
from alter.reporting.arms import Arm
from alter.reporting.run import gather
from alter.reporting.sections._places import Place, front, points

Compared = tuple[Path, Comparison]


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    places = {"cheap": (1, 50), "worse": (2, 49), "better": (3, 60), "same": (4, 60), "best": (9, 61)}
    assert [place.arm.name for place in front([place(name, x, y) for name, (x, y) in places.items()])] == [
        "cheap",
        "better",
        "best",
    ]


def test_averages_that_read_alike_are_a_tie_and_the_cheaper_arm_wins() -> None:
    assert [one.arm.name for one in front([place("cheap", 1, 59.81), place("dear", 20, 59.84)])] == ["cheap"]
    assert [one.arm.name for one in front([place("one", 1, 59.81), place("other", 1, 59.84)])] == ["one", "other"]


def place(name: str, cost: float, average: float, *, family: str = "own", is_close: bool = False) -> Place:
    arm = Arm(name=name, title="", family=family, members=(), splits={}, columns=(), is_close=is_close)
    return Place(arm=arm, cost=cost, average=spread(average), seeds=[0])


def test_of_many_points_those_have_a_name_that_a_reader_looks_for() -> None:
    others = [place(f"gate-{number}", 10 + number, 40.0) for number in range(12)]
    main = [place("mine", 5, 50.0, is_close=True), place("single-full", 100, 45.0), place("best", 90, 60.0)]
    peers = [place("peft-poly", 50, 41.0, family="peer"), place("peft-lora", 51, 42.0, family="peer")]
    few = points([*main, *peers], kept=[])
    assert all(point.named for point in few)
    many = points([*others, *main, *peers], kept=[main[2]])
    assert [point.name for point in many if point.named] == ["mine", "single-full", "best", "peft-lora"]
    assert [point.name for point in many if point.close] == ["mine"]


def test_arms_with_the_same_cost_and_average_are_one_point() -> None:
    found = points([place("gate", 5, 50.0), place("mine", 5, 50.0, is_close=True), place("other", 6, 50.0)], kept=[])
    assert [(point.name, point.close) for point in found] == [("mine = gate", True), ("other", False)]


def test_budgets_are_in_units_that_people_read(compared: Compared) -> None:
    report = gather([compared[0]])
    [table] = tables_of(report, "budget").values()
    assert table[1] == ["multi-full", "5 M", "6 M", "50", "1 min 40 s", "1.00", "2 GB", "24 MB", "40 %"]
    assert (
        "alter-lite trains 400 k of 6 M parameters (6.7 %), takes 0.75 times the time of multi-full, 40 % of it for stage 2"
        in reading_of(report, "budget")
    )
    sizes, times = figures_of(report, "quality")
    assert sizes.is_log
    assert {point.name: point.x for point in times.points} == {"multi-full": 1.0, "single-full": 4.0, "alter-lite": 0.75}
    assert "majority" in " ".join(getattr(block, "text", "") for block in blocks_of(report, "quality"))


def test_a_run_s_budget_comes_from_its_results_and_its_model(tmp_path: Path) -> None:
    counts = {"task_adapters": 90, "heads": 10, "gate": 5, "backbone": 1000, "total": 1105}
    run = write_run(tmp_path / "run", {"a": 50.0}, parameters=counts)
    (run / "model").mkdir()
    (run / "model" / "heads.safetensors").write_bytes(b"x" * 500)
    [table] = tables_of(gather([run]), "budget").values()
    assert table[1] == ["hand", "100", "1.1 k", "20", "10 s", "-", "3 MB", "4.5 kB", "-"]


def test_ffns_that_copies_stand_in_for_are_stored_with_a_frozen_base(tmp_path: Path) -> None:
    counts = {"task_adapters": 90, "heads": 10, "gate": 5, "backbone": 1000, "total": 1405}  # 300 in FFNs that nothing reads
    run = write_run(tmp_path / "run", {"a": 50.0}, parameters=counts)
    (run / "model").mkdir()
    (run / "model" / "heads.safetensors").write_bytes(b"x" * 500)
    [table] = tables_of(gather([run]), "budget").values()
    assert table[1][7] == "5.7 kB"


def test_several_recipes_are_set_against_their_time(tmp_path: Path) -> None:
    counts = {"task_adapters": 90, "heads": 10, "total": 1105}
    runs = [write_run(tmp_path / name, {"a": 50.0 + n}, recipe=name, parameters=counts) for n, name in enumerate(("one", "two"))]
    report = gather(runs)
    _, times = figures_of(report, "quality")
    assert times.x_label == "training time, s"
    assert [(point.name, point.x, point.y) for point in times.points] == [("one", 10.0, 50.0), ("two", 10.0, 51.0)]
    assert "Of trained arms, nothing quicker is as good as two (10.00 s, 51.0)." in reading_of(report, "quality")


def test_what_is_not_known_is_not_drawn(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {"a": 50.0}, recipe=name, stages={}) for name in ("one", "two")]
    report = gather(runs)
    assert figures_of(report, "quality") == []
    assert "Fewer than two arms have a known cost" in reading_of(report, "quality")
