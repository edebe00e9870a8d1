import json

import pytest

from experiments.speed import fusion_cost, side_by_side


def test_every_case_is_timed_beside_greedy_search(checkpoint_directory, tmp_path, capsys, speech):
    import soundfile

    audio, output = tmp_path / "a.wav", tmp_path / "rows.jsonl"
    soundfile.write(audio, speech[:20_000], 16_000)
    arguments = [str(checkpoint_directory), "--audio", str(audio), "--phrases", "3", "--sentences", "20"]
    arguments += ["--streams", "1", "--lookaheads", "1", "--repeats", "2", "--output", str(output)]
    assert fusion_cost.main(arguments) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    cases = ["none", "language model", "3 phrases"]
    assert [(row["what"], row["case"]) for row in rows] == [(w, c) for w in ("recordings", "streams") for c in cases]
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)
    assert f"| {checkpoint_directory.name} float32 | streams | 1 | 1 | 3 phrases |" in capsys.readouterr().out


def test_ratios_are_those_of_the_same_repeats():
    row = {"model": "small", "dtype": "int8", "what": "streams", "lookahead": 1, "streams": 2}
    row |= {"case": "none", "seconds": [1.0, 2.0]}
    other = row | {"case": "language model", "seconds": [1.5, 2.0]}
    large = [each | {"model": "large", "seconds": [9.0, 9.0]} for each in (row, other)]
    assert side_by_side.ratios([row, other, *large], other, case="none") == pytest.approx([1.5, 1.0])
    expected = "| small int8 | streams | 1 | 2 | language model | 1750.0 | 1.250 | 1.000 to 1.500 |"
    assert fusion_cost.table([row, other]).splitlines()[-1] == expected
