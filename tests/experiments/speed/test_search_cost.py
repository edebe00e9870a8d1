import json

import numpy as np
import pytest
import soundfile

from experiments.speed import search_cost, side_by_side


@pytest.fixture
def recording(tmp_path, speech):
    soundfile.write(tmp_path / "speech.wav", np.asarray(speech)[:20_000], 16_000)
    return tmp_path / "speech.wav"


def test_a_row_for_each_search(checkpoint_directory, recording, tmp_path, capsys):
    output, plot = tmp_path / "rows.jsonl", tmp_path / "plot.svg"
    arguments = [str(checkpoint_directory), "--audio", str(recording), "--widths", "2", "--streams", "2"]
    arguments += ["--lookaheads", "6", "--repeats", "2", "--output", str(output), "--plot", str(plot)]
    assert search_cost.main(arguments) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["what"], row["streams"], row["width"]) for row in rows] == [
        *(("recording", 1, 0), ("recording", 1, 2), ("streams", 2, 0), ("streams", 2, 2))
    ]
    assert all(len(row["seconds"]) == 2 and row["audio_s"] == 1.25 for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(rows) and "| greedy |" in lines[2] and plot.stat().st_size > 4_000


def test_ratios_are_those_of_the_same_repeats():
    alike = {"model": "small", "dtype": "int8", "what": "streams", "lookahead": 6, "streams": 2}
    rows = [{**alike, "width": 0, "seconds": [1.0, 2.0]}, {**alike, "width": 4, "seconds": [1.5, 2.0]}]
    other = [row | {"model": "large", "seconds": [9.0, 9.0]} for row in rows]
    assert side_by_side.ratios(rows + other, rows[1], width=0) == [1.5, 1.0]
