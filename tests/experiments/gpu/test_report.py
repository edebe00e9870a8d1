"""Which rows are in the table."""

from experiments.gpu.report import table

STEP = {
    "kind": "step",
    "streams": 1024,
    "lookahead": 1,
    "variant": "fused",
    "part": "step",
    "buffers": True,
    "active": 0,
    "compiling": 0,
    "p50_ms": 2.04,
    "p99_ms": 3.0,
    "kernels_ms": None,
    "labels_per_frame": 0.3,
}
PEER = {"kind": "peer", "part": "encoder step", "streams": 1, "lookahead": 0, "p50_ms": 31.0}


def lines(*rows):
    return table(rows).splitlines()[2:]  # without the heads; a run without such rows has one sentence


def test_a_step_and_a_peer_are_shown():
    assert lines(PEER, {**STEP, "active": 1}) == [
        "| step | 160 ms | fused | 1 of 1,024 | 2.0 | 3.0 |  | 0.30 |  |",
        "| transformers, encoder step | 80 ms |  | 1 | 31.0 |  |  |  |  |",
    ]


def test_unfair_rows_are_left_out():
    changes = [
        {"compiling": 1},
        {"labels_per_frame": 2.6},
        {"part": "encoder"},
        {"buffers": False},
        {"variant": "narrow"},
        {"error": "ValueError: wrong", "out_of_memory": False},
    ]
    assert lines(*({**STEP, **change} for change in changes)) == []
    assert lines({"kind": "ceilings"}, {"kind": "done"}, {"kind": "right", "model": "small"}) == []


def test_too_little_memory_is_shown():
    (line,) = lines({**PEER, "p50_ms": None, "error": "OutOfMemoryError: 2 GiB", "out_of_memory": True})
    assert "| out of memory |" in line


def test_a_batch_has_its_speed():
    offline = {**STEP, "kind": "offline", "batch": 1024, "seconds": 30.0, "rtfx": 4241.0}
    del offline["p50_ms"], offline["p99_ms"], offline["kernels_ms"]
    assert lines(offline) == ["| whole recordings |  | fused | 1,024 |  |  |  | 0.30 | 4,241 |"]
