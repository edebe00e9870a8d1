import json
from pathlib import Path

import pytest

from experiments.speed import versions
from experiments.speed.versions import parse

ROOT = Path(__file__).parents[3]


def test_a_version_is_a_name_and_a_directory(tmp_path):
    assert parse(f"a=b={tmp_path}") == ("a", Path(f"b={tmp_path}").resolve()) and parse("a=.")[1] == Path.cwd()


def test_versions_are_compared_with_the_first():
    row = lambda version, streams, *seconds: {
        "version": version, "lookahead": 0, "chunk_ms": 80.0, "streams": streams, "seconds": list(seconds)
    }  # fmt: skip
    rows = [row("old", 64, 0.04, 0.02, 0.03), row("new", 64, 0.015), row("old", 1024, 0.5), row("new", 1024, 0.25)]
    assert versions.table(rows).splitlines() == [
        "| chunk | streams | old, ms | new, ms | new / old |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| 80 ms | 64 | 30.0 [20.0, 40.0] | 15.0 | 0.50 |",
        "| 80 ms | 1,024 | 500 | 250 | 0.50 |",
    ]


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ([], "name at least one version"),
        (["before"], "'before' is not a version: write NAME=DIRECTORY"),
        (["before=missing"], "before: there is no package nemojax in"),
        ([f"after={ROOT}", "--streams", "0"], "--streams must be at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(arguments, complaint, capsys, tmp_path):
    assert versions.main([*arguments, "--output", str(tmp_path / "rows.jsonl")]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    sizes = ["--lookaheads", "0", "--streams", "2", "--repeats", "2", "--steps", "1"]
    assert versions.main([f"after={ROOT}", *sizes, "--output", str(output)]) == 0
    [row] = map(json.loads, output.read_text().splitlines())
    assert row["version"] == "after" and len(row["seconds"]) == 2 and "| 80 ms | 2 |" in capsys.readouterr().out
