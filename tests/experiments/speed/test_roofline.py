import dataclasses
import json

import jax
import pytest

from experiments.speed import roofline
from experiments.speed.roofline import Settings, bound, count
from nemojax.config import PRESETS
from nemojax.model.parameters import abstract_model


def test_what_a_step_moves_and_computes():
    config = PRESETS["tiny"]
    one, seven = count(config, 0), count(config, 6)
    assert one["weights_bytes"] == seven["weights_bytes"]
    encoder = config.encoder
    frame = 2 * 3 * encoder.layers * encoder.width  # keys, values, gated frames
    assert seven["state_bytes"] - one["state_bytes"] == seven["written_bytes"] - one["written_bytes"] == 6 * frame
    assert frame < one["written_bytes"] < one["state_bytes"] / 2
    cached = 2 * 2 * encoder.layers * encoder.left_context_frames * encoder.width
    assert cached < one["state_bytes"] < 2 * cached
    parameters = sum(leaf.size for leaf in jax.tree.leaves(abstract_model(config)))
    assert 2 * parameters <= one["weights_bytes"] < 4 * parameters
    deeper = dataclasses.replace(config, encoder=dataclasses.replace(encoder, layers=encoder.layers + 1))
    kernels = sum(leaf.size for leaf in jax.tree.leaves(abstract_model(config).encoder.blocks[0]) if leaf.ndim == 2)
    more = count(deeper, 6)["operations"] - seven["operations"]
    assert 7 * 2 * 0.8 * kernels < more < 7 * 2 * 3 * kernels  # without position projections, with attention


def test_times_follow_from_the_device():
    counted = {"weights_bytes": 1000, "state_bytes": 10, "written_bytes": 4, "operations": 50}
    settings = Settings(bytes_per_second=1e6, operations_per_second=1e5)
    row = bound(counted, 1, 20, settings)
    assert row["memory_ms"] == pytest.approx(1.28) and row["arithmetic_ms"] == pytest.approx(10)
    assert row["memory_bytes"] == 1200 and row["chunk_ms"] == 160


def test_the_command(tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    arguments = ["--preset", "tiny", "--lookaheads", "0", "6", "--streams", "100", "200", "--output", str(output)]
    assert roofline.main([*arguments, "--memory-bytes", "1e6"]) == 0
    printed = capsys.readouterr()
    assert "| 80 ms | 100 |" in printed.out and "200 streams do not fit" in printed.err
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["lookahead"] for row in rows] == [0, 6] and rows[1]["operations"] > 3 * rows[0]["operations"]


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--preset", "huge"], "--preset: 'huge' is none of"),
        (["--streams", "1"], "--streams takes a number for each"),
        (["--bytes-per-second", "0"], "must be more than 0"),
        (["--lookaheads", "4", "--preset", "0.6b", "--streams", "0"], "at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(arguments, complaint, capsys, tmp_path):
    assert roofline.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 2
    assert complaint in capsys.readouterr().err
