import json

import numpy as np
import pytest

from experiments.speed import engine_overhead
from experiments.speed.engine_overhead import table
from experiments.speed.zero_cost_engine import synthetic_emission


def test_labels_come_at_the_rate_of_speech(recognizer):
    emission = synthetic_emission(recognizer, 6, 2000, 0.5, seed=0)
    assert emission.length.mean() == pytest.approx(3.5, rel=0.1)
    assert emission.labels.min() >= 0 and emission.labels.max() < recognizer.config.blank
    assert not synthetic_emission(recognizer, 6, 50, 0.0, seed=0).length.any()


def test_every_chunk_is_counted(checkpoint_directory, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    arguments = [str(checkpoint_directory), "--lookaheads", "0", "6", "--streams", "5", "70", "--chunks", "9"]
    assert engine_overhead.main([*arguments, "--repeats", "2", "--output", str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["streams"], row["needed"]) for row in rows] == [(5, 62.5), (70, 125.0)]
    assert all(len(row["chunks_per_second"]) == 2 and min(row["chunks_per_second"]) > 0 for row in rows)
    assert all(max(row["cpu_us_per_chunk"]) > 0 and len(row["floor_per_second"]) == 2 for row in rows)
    assert "| 560 ms | 70 | 125 |" in capsys.readouterr().out


def test_the_table_compares_with_the_rate_that_is_needed():
    row = {"chunk_ms": 80.0, "streams": 2400, "needed": 30_000.0, "chunks_per_second": [60_000.0, 30_000.0, 90_000.0]}
    row |= {"cpu_us_per_chunk": [9.0, 8.0, 11.0], "floor_per_second": [5e5, 7e5, 6e5]}
    expected = "| 80 ms | 2,400 | 30,000 | 60,000 [30,000, 90,000] | 2.0 [1.0, 3.0] | 9.0 [8.0, 11.0] | 600,000 |"
    assert table([row]).splitlines()[-1] == expected


@pytest.mark.parametrize("arguments", [["--streams", "1"], ["--chunks", "0"], ["--labels-per-frame", "11"]])
def test_a_wrong_setting_is_an_error(arguments, capsys, tmp_path):
    assert engine_overhead.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_synthetic_labels_are_those_of_a_seed(recognizer):
    first, again, other = (synthetic_emission(recognizer, 1, 20, 0.3, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.labels != other.labels).any()
