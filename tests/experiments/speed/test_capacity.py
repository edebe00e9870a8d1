import json

import pytest

from experiments.speed import capacity
from experiments.speed.capacity import Memory
from experiments.speed.roofline import count
from nemojax.config import PRESETS


def test_streams_fill_what_the_weights_leave():
    of = lambda streams: Memory(1000 + 10 * streams, streams, 2 * streams)
    assert capacity.capacity((of(4), of(8)), (4, 8), 1000 + 13 * 50) == 50
    assert capacity.capacity((of(4), of(8)), (4, 8), 1000 + 13 * 51 - 1) == 50
    assert capacity.capacity((of(4), of(8)), (4, 8), 900) == 0


def test_the_command_compiles_and_allocates_nothing(tmp_path, capsys):
    """What a stream takes is its state, its samples and its labels, and temporary memory besides.

    Both sizes are subsampled in parts, so that temporary memory grows evenly.
    """
    output = tmp_path / "rows.jsonl"
    sizes = ["--lookaheads", "13", "--caches", "bfloat16", "--streams", "36", "72", "--cards-gb", "0.1", "1"]
    assert capacity.main(["--preset", "tiny", *sizes, "--output", str(output)]) == 0
    [row] = map(json.loads, output.read_text().splitlines())
    each, known = row["stream_bytes"], count(PRESETS["tiny"], 13)
    inputs = known["state_bytes"] + 4 * 14 * 1280
    assert inputs <= each["arguments"] < 1.01 * inputs and 0 < each["outputs"] < 0.1 * inputs
    assert each["temporary"] > 0
    weights = row["memory_bytes"][0]["arguments"] - 36 * each["arguments"]
    assert 0.9 * known["weights_bytes"] < weights < 1.1 * known["weights_bytes"]
    small, large = row["held"]
    assert small == pytest.approx((0.9e8 - row["fixed_bytes"]) / sum(each.values()), rel=0.01) and large > 9 * small
    assert "| 1120 ms | bfloat16 |" in (printed := capsys.readouterr().out) and f"| {small:,} | {large:,} |" in printed


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--preset", "huge"], "--preset: 'huge' is none of"),
        (["--streams", "8", "8"], "a smaller and a larger batch size"),
        (["--memory-fraction", "1.1"], "at most 1"),
        (["--lookaheads", "4", "11"], "11"),
    ],
)
def test_a_wrong_setting_is_an_error(arguments, complaint, capsys, tmp_path):
    assert capacity.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 2
    assert complaint in capsys.readouterr().err
