"""Bulk jobs that were interrupted or damaged, that other processes share, or that belong to other settings."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nemojax.decoding.greedy import Greedy
from nemojax.errors import ConfigError
from nemojax.recognition import bulk
from nemojax.recognition.bulk import FAILURES, JOB, PARTS, TRANSCRIPTS, Shard, transcribe_manifest
from tests.data.corpora import write_manifest
from tests.recognition.jobs import COUNT, LOOKAHEAD, StubRecognizer, merged, rows


def test_finished_lines_are_not_transcribed_again(stub, manifest, tmp_path, undisturbed):
    for shard in (Shard(1, 3), Shard(), Shard()):  # resumed by other processes than before
        outcome = transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4, shard)
    assert sum(map(len, stub.calls)) == COUNT + 3
    assert outcome == (COUNT + 3, COUNT + 3, 3) and merged(tmp_path) == undisturbed


@pytest.mark.parametrize("left", [0, 1, 40, 900])
def test_an_incomplete_line_is_transcribed_again(stub, manifest, tmp_path, undisturbed, left):
    """As after a kill, or on a full disk, in the middle of a write."""
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    for name in (TRANSCRIPTS, FAILURES):
        (tmp_path / name).unlink()
    part = tmp_path / PARTS / "00000.jsonl"
    part.write_bytes(part.read_bytes()[:left])
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    assert merged(tmp_path) == undisturbed
    assert len(part.read_text().splitlines()) == COUNT + 3


@pytest.mark.parametrize("damage", ["[1]", "{}", '{"line": "3"}', '{"line": 3, "audio": "x", ', "null", "\0\0\0"])
def test_a_damaged_line_is_transcribed_again(stub, manifest, tmp_path, undisturbed, damage):
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    part = tmp_path / PARTS / "00000.jsonl"
    lines = part.read_text().splitlines()
    part.write_text("\n".join([*lines[:3], damage, *lines[4:]]) + "\n")
    assert transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4) == (COUNT + 3, COUNT + 3, 3)
    assert len(stub.calls[-1]) == 1 and merged(tmp_path) == undisturbed


def test_an_incomplete_line_of_another_process_is_no_result(stub, manifest, tmp_path, undisturbed):
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    part = tmp_path / PARTS / "00000.jsonl"
    content = part.read_bytes()
    part.unlink()
    (tmp_path / PARTS / "00007.jsonl").write_bytes(content[:-1])  # the line break is missing
    assert transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4) == (COUNT + 3, COUNT + 3, 3)
    assert len(stub.calls[-1]) == 1 and merged(tmp_path) == undisturbed


@pytest.mark.parametrize("sizes", [(10, 0), (5, 7), (30, 3), (4, 4)])
def test_the_end_of_the_last_complete_line(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(bulk, "TAIL_BYTES", 5)
    complete, rest = sizes
    (tmp_path / "part").write_bytes(b"x" * (complete - 1) + b"\n" + b"y" * rest)
    with (tmp_path / "part").open("rb") as part:
        assert bulk._complete_bytes(part) == complete
    (tmp_path / "part").write_bytes(b"y" * rest)
    with (tmp_path / "part").open("rb") as part:
        assert bulk._complete_bytes(part) == 0


def test_two_results_of_one_line_count_once(stub, manifest, tmp_path, undisturbed):
    """Jobs with different shards at the same time can transcribe a line twice: the first result counts."""
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    copies = [*rows(undisturbed[0])[:2], *rows(undisturbed[1])[:2]]
    for row in copies:
        row.update({"error": "a copy"} if "error" not in row else {})
    later = tmp_path / PARTS / "00007.jsonl"
    later.write_text("".join(json.dumps({**row, "audio": "copy"}) + "\n" for row in copies))
    assert transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4) == (COUNT + 3, COUNT + 3, 3)
    assert merged(tmp_path) == undisturbed


def test_two_results_of_one_line_do_not_stand_for_a_missing_one(stub, manifest, tmp_path):
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4, Shard(0, 2))
    half = tmp_path / PARTS / "00000.jsonl"
    (tmp_path / PARTS / "00002.jsonl").write_bytes(half.read_bytes())
    done = len(half.read_text().splitlines())
    assert transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4, Shard(0, 2)).done == done == 8
    assert not (tmp_path / TRANSCRIPTS).exists()


def test_hundreds_of_processes_may_have_results(stub, manifest, tmp_path, undisturbed):
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    (first, *others), parts = (tmp_path / PARTS / "00000.jsonl").read_bytes().splitlines(True), tmp_path / PARTS
    for index in range(300):
        (parts / f"{index:05d}.jsonl").write_bytes({0: first, 299: b"".join(others)}.get(index, b""))
    assert transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4) == (COUNT + 3, COUNT + 3, 3)
    assert merged(tmp_path) == undisturbed


def test_a_result_is_on_disk_before_the_next_one_is_computed(manifest, tmp_path):
    part, on_disk = tmp_path / PARTS / "00000.jsonl", []

    class Watched(StubRecognizer):
        def transcribe_each(self, *arguments, **settings):
            for result in super().transcribe_each(*arguments, **settings):
                on_disk.append(len(part.read_bytes().splitlines()))
                yield result

    transcribe_manifest(Watched(), manifest, tmp_path, LOOKAHEAD, 4)
    assert on_disk == list(range(COUNT + 3))


def test_another_job_is_refused(stub, manifest, tmp_path, monkeypatch):
    transcribe_manifest(stub, manifest, tmp_path / "out", LOOKAHEAD, 4, Shard(0, COUNT))
    before = (tmp_path / "out" / JOB).read_text()

    def refused(message, manifest=manifest, lookahead=LOOKAHEAD):
        with pytest.raises(ConfigError, match=message):
            transcribe_manifest(stub, manifest, tmp_path / "out", lookahead, 4, Shard(0, COUNT))

    refused(r"holds a job with other settings \(lookahead was 6, now 1\); name another directory", lookahead=1)
    other = manifest.with_name("other.jsonl")
    other.write_text(manifest.read_text())
    refused(r"manifest was 'corpus\.jsonl', now 'other\.jsonl'\)", manifest=other)
    changed = tmp_path / manifest.name  # the same name, but not the same lines
    changed.write_text(manifest.read_text().replace("0.wav", "7.wav"))
    refused(r"settings \(sha256 was '\w{64}', now '\w{64}'\)", manifest=changed)
    with monkeypatch.context() as patch:
        patch.setattr(StubRecognizer, "search", Greedy(reset_prediction_after_s=1.0))
        refused(r"settings \(reset_prediction_after_s was None, now 1\.0\)")
    for name, value in (("parameters", 1), ("dtype", "int8"), ("fingerprint", "1" * 16), ("reproducible", True)):
        with monkeypatch.context() as patch:
            patch.setattr(StubRecognizer, name, value)
            refused(rf"settings \({name} was ")
    assert (tmp_path / "out" / JOB).read_text() == before and len(stub.calls) == 1
    for damage in ("", "{", "3"):
        (tmp_path / "out" / JOB).write_text(damage)
        refused("is not the description of a job; name another directory")


def test_a_job_of_an_earlier_version_resumes(stub, tmp_path):
    """The files as version 0.1.0 wrote them."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav"}\n{"audio_filepath": "gone.wav"}\n{"audio_filepath": "c.wav"}\n')
    (tmp_path / "out" / PARTS).mkdir(parents=True)
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    (tmp_path / "out" / JOB).write_text(
        f'{{\n  "manifest": "m.jsonl",\n  "sha256": "{digest}",\n'
        '  "parameters": 52201,\n  "dtype": "float32",\n  "lookahead": 6\n}\n'
    )
    kept = (
        '{"line": 2, "audio": "gone.wav", "error": "gone.wav: there is no such file"}\n'
        '{"line": 1, "audio": "a.wav", "text": "the", "tokens": [9], "frames": [4], "words": [{"word": "the", '
        '"start": 0.32, "end": 0.4, "confidence": 0.5}], "duration": 1.0, "lookahead": 6, "mode": "offline", '
        '"notes": ["resampled from 8000 Hz"]}\n'
    )
    (tmp_path / "out" / PARTS / "00000.jsonl").write_text(kept)
    assert transcribe_manifest(stub, manifest, tmp_path / "out", 6) == (3, 3, 1)
    assert stub.calls == [["c.wav"]]
    done, failed = merged(tmp_path / "out")
    failure, transcript = kept.splitlines()
    assert failed == failure + "\n" and done.splitlines()[0] == transcript and len(done.splitlines()) == 2


def test_results_of_lines_that_are_left_out_now_do_not_count(stub, tmp_path):
    """Earlier versions transcribed lines that are marked `_skipme`."""
    entries = [{"audio_filepath": "a.wav"}, {"audio_filepath": "b.wav", "_skipme": True}, {"audio_filepath": "c.wav"}]
    manifest, part = write_manifest(tmp_path / "m.jsonl", entries), tmp_path / "out" / PARTS / "00007.jsonl"
    part.parent.mkdir(parents=True)
    part.write_text('{"line": 2, "audio": "b.wav", "text": "b"}\n{"line": 3, "audio": "c.wav", "text": "c"}\n')
    assert transcribe_manifest(stub, manifest, tmp_path / "out") == (2, 2, 0) and stub.calls == [["a.wav"]]
    assert [row["line"] for row in rows(merged(tmp_path / "out")[0])] == [1, 3]


def test_a_shard_has_one_process(stub, manifest, tmp_path):
    (tmp_path / PARTS).mkdir()
    with (
        bulk._open_part(tmp_path, Shard(0, 2)),
        pytest.raises(ConfigError, match="another process is at work on shard 0"),
    ):
        transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4, Shard(0, 2))


@pytest.mark.slow
def test_kills_at_random_lose_nothing_and_repeat_nothing(checkpoint_directory, spoken, tmp_path):
    def command(output):
        options = ["--lookahead", str(LOOKAHEAD), "--batch-size", "4", "--output", str(output)]
        arguments = ["transcribe", str(spoken), "--model", str(checkpoint_directory), *options]
        return [sys.executable, "-m", "nemojax.cli", *arguments]

    assert subprocess.run(command(tmp_path / "undisturbed"), stderr=subprocess.DEVNULL).returncode == 1
    output = tmp_path / "killed"
    rng, part, kills = np.random.default_rng(os.getpid()), output / PARTS / "00000.jsonl", 0
    for _ in range(40):
        process = subprocess.Popen(command(output), stderr=subprocess.DEVNULL)
        before = part.stat().st_size if part.exists() else 0
        while process.poll() is None and kills < 4:  # killed after a further result is written
            if part.exists() and part.stat().st_size > before:
                time.sleep(rng.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        if process.wait() in (0, 1):
            break
    assert merged(output) == merged(tmp_path / "undisturbed") and kills
    numbers = [json.loads(line)["line"] for line in part.read_text().splitlines()]
    assert len(numbers) == len(set(numbers)) == COUNT + 3
