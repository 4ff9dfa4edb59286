from __future__ import annotations

from mobiledeploy.analysis import cores

PIXEL_6 = "0:124 1:124 2:124 3:124 4:427 5:427 6:1024 7:1024"


def test_whole_clusters_from_the_fastest_on() -> None:
    capacity = cores.capacities(PIXEL_6)
    assert cores.biggest(capacity, 1) == (6, 7)
    assert cores.biggest(capacity, 2) == (6, 7)
    assert cores.biggest(capacity, 3) == (4, 5, 6, 7)
    assert cores.biggest(capacity, 8) == ()
    assert cores.biggest(cores.capacities("0:1800000 1:1800000"), 1) == ()
    assert cores.biggest(cores.capacities(""), 1) == ()
    assert cores.capacities("99999999999:1 x:2 1:") == {}
    # Not every phone counts from the small ones on.
    assert cores.biggest(cores.capacities("0:1024 1:300"), 1) == (0,)


def test_the_command_is_pinned_if_possible() -> None:
    facts = {"core_capacity": PIXEL_6, "taskset": "yes"}
    assert cores.placed(["./runner", "x"], facts, 1) == ("taskset", "c0", "./runner", "x")
    assert cores.placed(["./runner"], {"core_capacity": PIXEL_6}, 1) == ("./runner",)
    assert cores.placed(["./runner"], {"taskset": "yes"}, 1) == ("./runner",)
