"""The time of kernels, by name and by scope."""

from experiments.gpu import kernels
from experiments.gpu.kernels import Kernel
from experiments.speed.trace import Operation

KERNELS = [Kernel("a", "", 0, 10), Kernel("b_1", "", 5, 20), Kernel("a", "fusion.2", 30, 40)]


def test_overlapping_kernels_count_once():
    assert kernels.busy_ns(KERNELS) == 30 and kernels.busy_ns([]) == 0


def test_the_largest_come_first():
    first, second = kernels.largest(KERNELS, 2, 2)
    assert first == {"name": "a", "ms": 0.0, "runs": 1.0} and second["name"] == "b_1" and second["runs"] == 0.5
    assert len(kernels.largest(KERNELS, 2, 1)) == 1


def test_blocks_share_a_scope():
    known = {"b.1": Operation("encoder/block3/attention"), "fusion.2": Operation("decoder")}
    assert set(kernels.by_scope(KERNELS, 1, known)) == {"(no scope)", "encoder/blocks/attention", "decoder"}
