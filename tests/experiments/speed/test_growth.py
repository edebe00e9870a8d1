import json

import pytest

from experiments.speed import growth as cost_growth
from nemojax.recognition.stream_batch import step_jit

SMALL = ["--preset", "tiny", "--grow-streams", "1", "3", "--grow-left-context-frames", "14", "70"]
SMALL += ["--grow-lookahead", "0", "6", "--grow-seconds", "1.0", "2.5", "--repeats", "2", "--steps", "2"]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_row_for_each_point(tmp_path, capsys, dtype):
    output, plot = tmp_path / "rows.jsonl", tmp_path / "plot.svg"
    assert cost_growth.main([*SMALL, "--dtype", dtype, "--output", str(output), "--plot", str(plot)]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["grows"], row["value"]) for row in rows] == [
        *(("streams", 1), ("streams", 3), ("left_context_frames", 14), ("left_context_frames", 70)),
        *(("lookahead", 0), ("lookahead", 6), ("seconds", 1.0), ("seconds", 2.5)),
    ]
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 and row["dtype"] == dtype for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)
    assert plot.stat().st_size > 5_000


def test_nothing_is_said(monkeypatch):
    said = []

    def noting(*given, **settings):
        state, emission = step_jit(*given, **settings)
        said.append(int(emission.length.max()))
        return state, emission

    monkeypatch.setattr(cost_growth, "step_jit", noting)
    cost_growth.Bench(cost_growth.Settings(preset="tiny")).step(2, 14, 6)()
    assert said and not any(said)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--preset", "huge"], "none of 0.6b"),
        (["--grow-lookahead", "2"], "lookahead 2 does not fit"),
        (["--grow-left-context-frames", "15"], "does not fit"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(capsys, arguments, complaint):
    assert cost_growth.main(arguments) == 2
    assert complaint in capsys.readouterr().err
