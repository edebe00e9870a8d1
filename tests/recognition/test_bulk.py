import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from nemojax import cli
from nemojax.errors import ConfigError
from nemojax.recognition import bulk
from nemojax.recognition.bulk import FAILURES, JOB, PARTS, TRANSCRIPTS, Shard, transcribe_manifest
from nemojax.recognition.recognizer import load
from tests.data.corpora import write_manifest

LOOKAHEAD = 6
COUNT = 12


@pytest.fixture(scope="module")
def recognizer(checkpoint_directory):
    return load(checkpoint_directory)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, speech):
    """Recordings of 0.3 to 7 s, with and without a duration; two that fail, a line that is none, a blank one."""
    directory, entries = tmp_path_factory.mktemp("bulk"), []
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        seconds = round(float(rng.uniform(0.3, 7.0)), 2)
        x = np.resize(np.roll(np.asarray(speech), 5000 * number), round(16_000 * seconds))
        soundfile.write(directory / f"{number}.wav", x, 16_000, subtype="FLOAT")
        entries.append({"audio_filepath": f"{number}.wav", **({"duration": seconds} if number % 3 else {})})
    entries.insert(3, {"audio_filepath": "missing.wav"})
    (directory / "broken.wav").write_text("not audio")
    entries.insert(7, {"audio_filepath": "broken.wav", "text": 'with "error": in it'})
    path = write_manifest(directory / "corpus.jsonl", entries)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "", *lines[5:], "{not json"]) + "\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(recognizer, manifest, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    outcome = transcribe_manifest(recognizer, manifest, output, LOOKAHEAD, batch_size=4)
    assert outcome == (COUNT + 3, COUNT + 3, 3)
    return (output / TRANSCRIPTS).read_text(), (output / FAILURES).read_text()


def merged(output):
    return (output / TRANSCRIPTS).read_text(), (output / FAILURES).read_text()


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_has_one_result_in_order(undisturbed, manifest, recognizer):
    done, failed = map(rows, undisturbed)
    assert [row["line"] for row in failed] == [4, 9, COUNT + 4]
    assert "missing.wav" in failed[0]["error"] and "JSON" in failed[2]["error"]
    numbers = [row["line"] for row in done]
    assert numbers == sorted(numbers) and set(numbers) | {4, 9, COUNT + 4} == {*range(1, COUNT + 5)} - {6}
    for row in (done[0], done[5], done[-1]):
        alone = recognizer.transcribe(manifest.parent / row["audio"], LOOKAHEAD)
        assert (row["text"], tuple(row["tokens"])) == (alone.text, alone.tokens)


@pytest.mark.parametrize("count", [2, 5])
def test_shares_make_the_whole_in_any_order(recognizer, manifest, tmp_path, undisturbed, count):
    outcomes = []
    for index in reversed(range(count)):
        assert not (tmp_path / TRANSCRIPTS).exists()
        outcomes.append(transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4, Shard(index, count)))
    assert [outcome.done for outcome in outcomes] == sorted(outcome.done for outcome in outcomes)
    assert merged(tmp_path) == undisturbed
    sizes = [len((tmp_path / PARTS / f"{index:05d}.jsonl").read_text().splitlines()) for index in range(count)]
    assert sum(sizes) == COUNT + 3 and max(sizes) - min(sizes) <= 1


def test_what_is_done_is_not_done_again(recognizer, manifest, tmp_path, undisturbed, monkeypatch):
    heard = []
    each = type(recognizer).transcribe_each

    def counted(self, sources, *arguments, **settings):
        sources = list(sources)
        heard.append(len(sources))
        return each(self, sources, *arguments, **settings)

    monkeypatch.setattr(type(recognizer), "transcribe_each", counted)
    transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4, Shard(1, 3))
    transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4)  # by other processes than before
    transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4)
    assert sum(heard) == COUNT + 3 and merged(tmp_path) == undisturbed


@pytest.mark.parametrize("left", [0, 1, 40, 5_000])
def test_a_line_that_was_cut_off_is_done_again(recognizer, manifest, tmp_path, undisturbed, left):
    """A kill, or a full disk, in the middle of a write."""
    transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4)
    for name in (TRANSCRIPTS, FAILURES):
        (tmp_path / name).unlink()
    part = tmp_path / PARTS / "00000.jsonl"
    part.write_bytes(part.read_bytes()[:left])
    transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4)
    assert merged(tmp_path) == undisturbed
    assert len(part.read_text().splitlines()) == COUNT + 3


def test_another_job_is_refused(recognizer, manifest, tmp_path):
    transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4, Shard(0, COUNT))
    with pytest.raises(ConfigError, match="lookahead: 6 then, 1 now"):
        transcribe_manifest(recognizer, manifest, tmp_path, 1, 4, Shard(0, COUNT))
    other = manifest.with_name("other.jsonl")
    other.write_text(manifest.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match=r"manifest: 'corpus\.jsonl' then, 'other\.jsonl' now"):
        transcribe_manifest(recognizer, other, tmp_path, LOOKAHEAD)
    assert json.loads((tmp_path / JOB).read_text())["lookahead"] == LOOKAHEAD


def test_a_share_has_one_process(recognizer, manifest, tmp_path):
    (tmp_path / PARTS).mkdir()
    with (
        bulk._part(tmp_path, Shard(0, 2)),
        pytest.raises(ConfigError, match="another process is at work on share 0"),
    ):
        transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, 4, Shard(0, 2))


def test_shards():
    assert Shard.parse("3/8") == Shard(3, 8)
    for wrong in ("3", "8/8", "-1/8", "a/b", "0/0"):
        with pytest.raises(ConfigError):
            Shard.parse(wrong)
    assert Shard.of_environment({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}) == Shard(2, 4)
    # in the batch script itself there is a number, but it is alone
    assert Shard.of_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Shard(0, 1)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["a.wav", "--output", "out"], "--output is for one manifest"),
        (["a.jsonl", "--output", "out", "--stream"], "does not go with --stream"),
        (["a.wav", "--shard", "0/2"], "--shard is for a manifest with --output"),
        (["a.jsonl", "--output", "out", "--shard", "2/2"], "INDEX from 0 to COUNT - 1"),
        (["missing.jsonl", "--output", "out"], "missing.jsonl"),
    ],
)
def test_mistakes_are_sentences(checkpoint_directory, capsys, tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["transcribe", *arguments, "--model", str(checkpoint_directory)]) == 2
    assert complaint in capsys.readouterr().err


def command(checkpoint_directory, manifest, output, *more):
    command = [sys.executable, "-m", "nemojax.cli", "transcribe", str(manifest), "--model", str(checkpoint_directory)]
    return [*command, "--lookahead", str(LOOKAHEAD), "--batch-size", "4", "--output", str(output), *more]


@pytest.mark.slow
def test_kills_at_random_lose_nothing_and_repeat_nothing(checkpoint_directory, manifest, tmp_path, undisturbed):
    rng, part, kills = np.random.default_rng(os.getpid()), tmp_path / PARTS / "00000.jsonl", 0
    for _ in range(40):
        process = subprocess.Popen(command(checkpoint_directory, manifest, tmp_path), stderr=subprocess.DEVNULL)
        before = part.stat().st_size if part.exists() else 0
        while process.poll() is None and kills < 4:  # killed once something more is written
            if part.exists() and part.stat().st_size > before:
                time.sleep(rng.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        if process.wait() in (0, 1):
            break
    assert merged(tmp_path) == undisturbed and kills
    numbers = [json.loads(line)["line"] for line in part.read_text().splitlines()]
    assert len(numbers) == len(set(numbers)) == COUNT + 3
