"""The small model that comes with the package."""

import json
import sys

import pytest

import nemojax
from nemojax import cli
from nemojax.bundled import EXAMPLE, SMALL
from nemojax.metrics import plain, word_errors

MAX_BYTES = 12_000_000


def test_it_is_complete_and_small():
    files = [path for path in SMALL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    origin = json.loads((SMALL / "origin.json").read_text())
    assert origin["format"] == "nemojax" and origin["step"] > 0
    card = (SMALL / "README.md").read_text()
    for heading in ("## Data", "## Recipe", "## Results", "## Limits"):
        assert heading in card


@pytest.fixture(scope="module")
def recognizer():
    return nemojax.load()


def test_it_transcribes_its_example(recognizer):
    expected = (SMALL / "example.txt").read_text().strip()
    transcript = recognizer.transcribe(EXAMPLE)
    assert word_errors(plain(expected), plain(transcript.text)).rate < 0.1
    assert transcript.duration_s > 5


@pytest.mark.slow
@pytest.mark.parametrize("lookahead", [13, 6, 1, 0])
def test_streaming_is_offline(recognizer, lookahead):
    from nemojax.audio.source import open_audio

    audio, stream = open_audio(EXAMPLE), recognizer.stream(lookahead)
    while len(samples := audio.read(1000)):
        stream.push(samples)
    streamed, whole = stream.finish(), recognizer.transcribe(EXAMPLE, lookahead)
    assert streamed.tokens == whole.tokens and streamed.frames == whole.frames and streamed.text == whole.text


def test_the_command_line_needs_no_model(capsys):
    assert cli.main(["transcribe", str(EXAMPLE)]) == 0
    assert plain(capsys.readouterr().out)
    assert cli.main(["info"]) == 0
    assert "parameters" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_in_the_wheel(tmp_path):
    import subprocess
    import zipfile
    from pathlib import Path

    root = Path(__file__).parent.parent
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(root)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(root)) for path in SMALL.rglob("*") if path.is_file()}
    companions = "nemojax/companions"
    wanted |= {"nemojax/py.typed", f"{companions}/convert/py.typed", f"{companions}/convert/__main__.py"}
    assert wanted <= names and {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"nemojax"}
