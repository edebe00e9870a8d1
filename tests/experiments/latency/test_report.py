import math

import pytest

from experiments.latency.report import (
    batch_table,
    fastest,
    floor,
    percentiles,
    plot,
    ratios,
    start_table,
    stream_table,
    verdicts,
)


def stream_row(contender: str, repeat: int, whole_s: float, lookahead: int = 6) -> dict:
    return {
        "kind": "stream",
        "contender": contender,
        "lookahead": lookahead,
        "chunk_ms": 80.0 * (lookahead + 1),
        "repeat": repeat,
        "frames": 70,
        **percentiles([(whole_s, whole_s / 2, whole_s / 4)] * 10),
        "real_time_factor": whole_s / 0.56,
        "labels": 21,
        "labels_off": 0.0,
        "peak_bytes": 3_000_000_000,
    }


ROWS = [
    stream_row("nemojax float32", 0, 0.10),
    stream_row("nemojax float32", 1, 0.12),
    stream_row("nemojax bfloat16", 0, 0.05),
    stream_row("nemojax bfloat16", 1, 0.06),
    stream_row("NeMo float32", 0, 0.20),
    stream_row("NeMo float32", 1, 0.18),
    stream_row("onnxruntime int8", 0, 0.10),
    stream_row("onnxruntime int8", 1, 0.09),
]


def test_percentiles_of_each_part():
    found = percentiles([(0.3, 0.2, 0.1), (0.1, 0.06, 0.04), (0.2, 0.1, 0.1)])
    assert found["whole"]["p50"] == 0.2 and found["encoder"]["p50"] == 0.1 and found["decoder"]["p50"] == 0.1
    assert found["whole"]["p99"] == pytest.approx(0.298) and found["whole"]["p95"] == pytest.approx(0.29)


def test_a_contender_without_parts_has_its_whole_step_alone():
    row = ROWS[0] | {"contender": "sherpa-onnx int8"} | percentiles([(0.3, math.nan, math.nan)] * 3)
    assert set(percentiles([(0.3, math.nan, math.nan)])) == {"whole"}
    row = {key: value for key, value in row.items() if key not in ("encoder", "decoder")}
    line = next(line for line in stream_table([*ROWS, row]).splitlines() if "sherpa" in line)
    assert [cell.strip() for cell in line.split("|")][2:7] == ["300.0", "300.0", "300.0", "", ""]


def test_the_fastest_is_that_of_the_least_median():
    assert fastest(ROWS, 6, ours=True) == "nemojax bfloat16"
    assert fastest(ROWS, 6, ours=False) == "onnxruntime int8"
    assert fastest(ROWS, 0, ours=False) is None
    only_ours = [row for row in ROWS if row["contender"].startswith("nemojax")]
    assert fastest(only_ours, 6, ours=False) is None


def test_ratios_pair_measurements_of_the_same_repeat():
    assert ratios(ROWS, "NeMo float32", "nemojax bfloat16", 6) == pytest.approx([4.0, 3.0])
    assert verdicts(ROWS) == [
        "look-ahead 6: the fastest peer, onnxruntime int8, takes 1.75 [1.50, 2.00] times as long as nemojax bfloat16"
    ]


def test_tables_have_a_line_for_each_contender():
    lines = stream_table(ROWS).splitlines()
    assert len(lines) == 2 + 4
    cells = [cell.strip() for cell in lines[2 + 2].split("|")[1:-1]]
    assert cells == [
        *("6, NeMo float32", "190.0 [180.0, 200.0]", "190.0 [180.0, 200.0]", "190.0 [180.0, 200.0]"),
        *("95.0 [90.0, 100.0]", "47.5 [45.0, 50.0]", "0.339 [0.321, 0.357]", "3.50 [3.00, 4.00]"),
        *("0.30", "0.0", "3.0"),
    ]
    starts = [
        {
            "kind": "start",
            "contender": "nemojax float32",
            "lookahead": 0,
            "cache": cache,
            "repeat": 0,
            "loaded_s": 2.0,
            "first_s": first_s,
            **memory,
        }
        for cache, first_s, memory in (("none", 30.0, {}), ("kept", 4.0, {"resident_bytes": 940_000_000}))
    ]
    assert [line.split("|")[3:7] for line in start_table(starts).splitlines()[2:]] == [
        [" none ", " 2.0 ", " 30.0 ", "  "],
        [" kept ", " 2.0 ", " 4.0 ", " 0.94 "],
    ]
    batch = {"kind": "batch", "contender": "NeMo float32", "what": "mixed", "lookahead": 13, "batch_size": 4}
    batch |= {"repeat": 0, "seconds": 4.0, "audio_s": 80.0, "labels_off": None, "peak_bytes": 1}
    assert batch_table([batch]).splitlines()[2] == "| NeMo float32 | mixed | 13 | 4 | 4.00 | 20.0 |  |"


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_plot_is_the_same_for_the_same_rows(tmp_path, kind):
    rows = ROWS + [stream_row(row["contender"], row["repeat"], 0.03, lookahead=0) for row in ROWS]
    for name in "ab":
        plot(rows, tmp_path / f"{name}.{kind}")
    first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
    assert first == second and len(first) > 5_000


def test_the_floor_is_bytes_over_the_rate():
    row = {"kind": "floor", "bytes_per_second": 10e9, "encoder_parameters": 600_000_000, "parameters": 618_000_000}
    assert floor([row]) == (
        "floor: 600M weights of the encoder, read once a step at 10.0 GB/s: "
        "240.0 ms in float32, 120.0 ms in bfloat16, 60.0 ms in int8"
    )
