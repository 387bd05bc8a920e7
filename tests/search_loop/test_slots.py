"""Slots: shares of GPUs add up, and every worker finds a place."""

from hypothesis import given
from hypothesis import strategies as st

from dendrite_automl.search_loop.slots import Slots, share_gpus


def test_without_gpus_there_are_no_slots_on_them() -> None:
    assert share_gpus([]) is None
    assert share_gpus([{"CPU": 8.0}, {"CPU": 4.0, "GPU": 0.0}, {"GPU": 2.0}]) is None
    assert Slots(workers=3).resources == {"cpu": 1}
    assert Slots(workers=3).accelerator == "cpu"


def test_workers_of_one_machine_share_its_gpus() -> None:
    one = share_gpus([{"CPU": 4.0, "GPU": 1.0, "memory": 1e9}], 4)
    assert one == Slots(workers=4, gpu=0.25)
    assert (one.resources, one.accelerator) == ({"cpu": 1, "gpu": 0.25}, "cuda")
    assert str(one) == "4 workers, up to 4 on one GPU"
    assert share_gpus([{"CPU": 3.0, "GPU": 2.0}], 3) == Slots(workers=3, gpu=0.5)
    assert str(share_gpus([{"CPU": 1.0, "GPU": 2.0}], 1)) == "1 workers, one GPU each"
    assert share_gpus([{"CPU": 64.0, "GPU": 1.0}], 2) == Slots(workers=2, gpu=0.5), "of a Ray that is larger than the wish"


def test_on_a_cluster_nodes_without_a_gpu_are_left_out() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 64.0}, {"CPU": 8.0, "GPU": 4.0}]
    assert share_gpus(nodes) == Slots(workers=16, gpu=0.125)


@given(st.lists(st.tuples(st.integers(1, 128), st.integers(1, 8)), min_size=1), st.none() | st.integers(1, 300))
def test_all_workers_find_a_place(sizes: list[tuple[int, int]], most: int | None) -> None:
    slots = share_gpus([{"CPU": float(cores), "GPU": float(gpus)} for cores, gpus in sizes], most)
    assert slots is not None
    assert 0 < slots.gpu <= 1
    on_one = int(round(slots.gpu * 10**4) and 10**4 // round(slots.gpu * 10**4))  # Ray counts in ten-thousandths
    assert sum(min(cores, gpus * on_one) for cores, gpus in sizes) >= slots.workers
