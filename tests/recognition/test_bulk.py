"""Bulk jobs, with a recognizer that needs no model; the last tests have a real one."""

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import soundfile

from nemojax.audio.manifest import Manifest
from nemojax.audio.source import Recording
from nemojax.config import PRESETS
from nemojax.errors import AudioError, ConfigError
from nemojax.recognition import bulk
from nemojax.recognition.bulk import FAILURES, JOB, PARTS, TRANSCRIPTS, Shard, transcribe_manifest
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.transcript import Transcript
from tests.data.corpora import write_manifest

LOOKAHEAD = 6
COUNT = 12
FAILED = [4, 9, COUNT + 4]  # lines of the manifest; line 6 is blank
TRICKY = 'with "error": in it'


class StubRecognizer(Recognizer):
    """Transcribes a recording as its name. Each batch is completed in reverse order; broken.wav fails."""

    config, parameters, dtype = PRESETS["tiny"], 52_201, "float32"

    def __init__(self):
        self.calls, self.batches = [], []  # names of each call; (look-ahead, batch size) of each call

    def transcribe_each(self, sources, lookahead=None, batch_size=8, sample_rate_hz=16_000, progress=lambda s: None):
        self.calls.append([])
        self.batches.append((lookahead, batch_size))
        batch = []
        for index, source in enumerate(sources):
            batch.append((index, source))
            if len(batch) == batch_size:
                yield from self._results(batch, progress)
                batch = []
        yield from self._results(batch, progress)

    def _results(self, batch, progress):
        for index, source in reversed(batch):
            self.calls[-1].append(source.name if isinstance(source, Recording) else str(source))
            if isinstance(source, AudioError):
                yield index, source
            elif source.name == "broken.wav":
                yield index, AudioError("broken.wav: it is not audio")
            else:
                progress(1.5)
                yield index, Transcript(f"{TRICKY} {source.name}", (3, 5), (0, 2), (), 1.5, LOOKAHEAD, "offline")


def write_corpus(directory, seconds):
    """Writes a manifest of recordings: two thirds with a duration, two that fail, a blank line, an invalid line."""
    entries = [
        {"audio_filepath": f"{number}.wav", **({"duration": duration} if number % 3 else {})}
        for number, duration in enumerate(seconds)
    ]
    entries.insert(3, {"audio_filepath": "broken.wav"})
    entries.insert(7, {"audio_filepath": "broken.wav", "text": TRICKY})
    path = write_manifest(directory / "corpus.jsonl", entries)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "", *lines[5:], "{not json"]) + "\n")
    return path


@pytest.fixture
def stub():
    return StubRecognizer()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("bulk"), np.random.default_rng(0).uniform(0.3, 30.0, COUNT).round(2))


@pytest.fixture(scope="module")
def undisturbed(manifest, tmp_path_factory):
    """The merged files of one process that nothing disturbs."""
    output = tmp_path_factory.mktemp("undisturbed") / "new" / "out"
    outcome = transcribe_manifest(StubRecognizer(), manifest, output, LOOKAHEAD, batch_size=4)
    assert outcome == (COUNT + 3, COUNT + 3, 3)
    return merged(output)


def merged(output):
    return (output / TRANSCRIPTS).read_text(), (output / FAILURES).read_text()


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_has_one_result_in_the_manifests_order(undisturbed):
    done, failed = map(rows, undisturbed)
    assert [row["line"] for row in failed] == FAILED
    assert [row["audio"] for row in failed] == ["broken.wav", "broken.wav", f"corpus.jsonl: line {COUNT + 4}"]
    assert failed[0]["error"] == "broken.wav: it is not audio" and "it is not JSON" in failed[2]["error"]
    assert [list(row) for row in failed] == [
        ["line", "audio", "offset", "audio_filepath", "error"],
        ["line", "audio", "offset", "audio_filepath", "text", "error"],
        ["line", "audio", "error"],
    ]
    assert [row["line"] for row in done] == sorted({*range(1, COUNT + 5)} - {6, *FAILED})
    assert [row["audio"] for row in done] == [f"{number}.wav" for number in range(COUNT)]
    for row in done:
        transcript = Transcript(f"{TRICKY} {row['audio']}", (3, 5), (0, 2), (), 1.5, LOOKAHEAD, "offline")
        request = {"audio_filepath": row["audio"], "offset": 0.0, "pred_text": transcript.text, "reference": None}
        # the manifest's duration, which differs from that of the audio
        assert list(row.pop("request", {})) == (["duration"] if int(row["audio"].split(".")[0]) % 3 else [])
        assert row == {"line": row["line"], **request, **transcript.to_dict(row["audio"])}


def test_a_failure_is_known_by_its_fields(stub, tmp_path):
    names = ['"error": .wav', "error", "übung.wav", "broken.wav"]
    manifest = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": name} for name in names])
    assert transcribe_manifest(stub, manifest, tmp_path / "out") == (4, 4, 1)
    done, failed = map(rows, merged(tmp_path / "out"))
    assert [row["audio"] for row in done] == names[:3] and [row["line"] for row in failed] == [4]
    assert "übung" in (tmp_path / "out" / TRANSCRIPTS).read_text()


@pytest.mark.parametrize("count", [2, 5])
def test_shards_make_the_whole_in_any_order(stub, manifest, tmp_path, undisturbed, count):
    outcomes = []
    for index in reversed(range(count)):
        assert not (tmp_path / TRANSCRIPTS).exists()
        outcomes.append(transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4, Shard(index, count)))
    assert [outcome.done for outcome in outcomes] == sorted({outcome.done for outcome in outcomes})
    assert {outcome.recordings for outcome in outcomes} == {COUNT + 3} and outcomes[-1] == (COUNT + 3, COUNT + 3, 3)
    assert merged(tmp_path) == undisturbed
    sizes = [len((tmp_path / PARTS / f"{index:05d}.jsonl").read_text().splitlines()) for index in range(count)]
    assert sum(sizes) == COUNT + 3 and max(sizes) - min(sizes) <= 1


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


def test_a_result_is_on_disk_before_the_next_one_is_computed(manifest, tmp_path):
    part, on_disk = tmp_path / PARTS / "00000.jsonl", []

    class Watched(StubRecognizer):
        def transcribe_each(self, *arguments, **settings):
            for result in super().transcribe_each(*arguments, **settings):
                on_disk.append(len(part.read_bytes().splitlines()))
                yield result

    transcribe_manifest(Watched(), manifest, tmp_path, LOOKAHEAD, 4)
    assert on_disk == list(range(COUNT + 3))


def test_failures_and_progress_are_reported(stub, manifest, tmp_path):
    errors, seconds = [], []
    transcribe_manifest(
        stub, manifest, tmp_path, LOOKAHEAD, 4, progress=seconds.append, report=lambda e: errors.append(str(e))
    )
    assert sorted(errors)[1:] == ["broken.wav: it is not audio"] * 2
    assert sorted(errors)[0].startswith(f"{manifest}: line {COUNT + 4}: it is not JSON")
    assert seconds == [1.5] * COUNT
    assert set(stub.batches) == {(LOOKAHEAD, 4)}


def test_lines_of_similar_duration_are_transcribed_together(stub, tmp_path):
    window_s = stub.config.encoder.left_context_frames * stub.config.frame_ms / 1000
    durations = [1.0, 5 * window_s, window_s, 2 * window_s, window_s + 0.1, 2 * window_s + 0.1, None, "x", 0.5]
    manifest = write_manifest(
        tmp_path / "m.jsonl", [{"audio_filepath": str(i), "duration": d} for i, d in enumerate(durations)]
    )
    transcribe_manifest(stub, manifest, tmp_path / "out", batch_size=1)
    assert stub.calls[:2] == [["0", "2", "8"], ["3", "4"]]
    assert stub.calls[2][:3] == ["1", "5", "6"] and "line 8: its duration is 'x'" in stub.calls[2][3]
    assert stub.batches[0] == (stub.config.encoder.lookaheads[0], 1)  # the model's look-ahead


def test_a_line_is_parsed_once_when_its_turn_comes(stub, manifest, tmp_path, monkeypatch):
    parsed, parse = [], Manifest.parse
    monkeypatch.setattr(
        Manifest, "parse", lambda self, number, content: parsed.append(number) or parse(self, number, content)
    )
    transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4)
    assert sorted(parsed) == sorted({*range(1, COUNT + 5)} - {6})


def test_memory_of_a_long_manifest(tmp_path):
    """Less than 200 bytes per line: a manifest may have millions of lines."""
    lines = 2000
    path = tmp_path / "m.jsonl"
    write_manifest(path, [{"audio_filepath": f"{n}.wav", "duration": 3, "text": "x" * 200} for n in range(lines)])
    manifest = Manifest(path)
    bulk._schedule(manifest, StubRecognizer.config, Shard(), set())
    tracemalloc.start()
    schedule = bulk._schedule(manifest, StubRecognizer.config, Shard(), set())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(schedule.numbers) == sum(len(group.numbers) for group in schedule.groups) == lines
    assert peak < 50_000 + 40 * lines


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
    for name, value in (("parameters", 1), ("dtype", "int8")):
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


def test_bad_lines_end_no_job_and_names_need_not_be_utf8(stub, tmp_path):
    """The job is started twice: what was written must be read back."""
    names = ["M\udce4dchen.wav", "two\nlines.wav", "ünï.wav"]
    lines = [json.dumps({"audio_filepath": name, "duration": 1.0, "utt": "\ud800"}) for name in names]
    lines += [f'{{"audio_filepath": "a.wav", "duration": {"9" * digits}}}' for digits in (401, 5000)]
    lines += ['{"audio_filepath": "a.wav", "x": ' + "[" * 990 + "]" * 990 + "}", '{"audio_filepath": "\\ud800"}']
    content = "\n".join(lines).encode() + b'\n{"audio_filepath": "\xe4.wav"}\n'
    (tmp_path / "m.jsonl").write_bytes(content)
    for _ in range(2):
        outcome = transcribe_manifest(stub, tmp_path / "m.jsonl", tmp_path / "out")
    done, failed = map(rows, merged(tmp_path / "out"))
    assert outcome.recordings == outcome.done == 8 and sum(map(len, stub.calls)) == 8
    assert [row["audio"] for row in done][:3] == names and done[0]["utt"] == "\ud800"
    assert done[-1]["audio"] == "\udce4.wav" and {row["line"] for row in failed} >= {4, 5, 6}


def test_a_gzipped_manifest(stub, manifest, tmp_path, undisturbed):
    zipped = tmp_path / "corpus.jsonl.gz"
    zipped.write_bytes(gzip.compress(manifest.read_bytes()))
    assert transcribe_manifest(stub, zipped, tmp_path / "out", LOOKAHEAD, 4) == (COUNT + 3, COUNT + 3, 3)
    assert merged(tmp_path / "out")[0] == undisturbed[0]
    assert f"corpus.jsonl.gz: line {COUNT + 4}" in merged(tmp_path / "out")[1]


def test_a_shard_has_one_process(stub, manifest, tmp_path):
    (tmp_path / PARTS).mkdir()
    with (
        bulk._open_part(tmp_path, Shard(0, 2)),
        pytest.raises(ConfigError, match="another process is at work on shard 0"),
    ):
        transcribe_manifest(stub, manifest, tmp_path, LOOKAHEAD, 4, Shard(0, 2))


def test_directories_that_can_not_be_written(stub, manifest, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"file.* can't be read or written: (Not a directory|File exists)"):
            transcribe_manifest(stub, manifest, output, LOOKAHEAD)
    with pytest.raises(AudioError, match=r"nowhere\.jsonl: the manifest can't be read"):
        transcribe_manifest(stub, tmp_path / "nowhere.jsonl", tmp_path / "out", LOOKAHEAD)


def test_an_empty_manifest_is_done(stub, tmp_path):
    (tmp_path / "m.jsonl").write_text("\n\n")
    assert transcribe_manifest(stub, tmp_path / "m.jsonl", tmp_path / "out") == (0, 0, 0)
    assert merged(tmp_path / "out") == ("", "") and stub.calls == []


def test_shards():
    assert Shard.parse("3/8") == Shard.parse(" 3/8\n") == Shard(3, 8)
    for wrong in ("3", "a/b", "-1/8", "1/2/3"):
        with pytest.raises(ConfigError, match="written as INDEX/COUNT, such as 0/8, not"):
            Shard.parse(wrong)
    for wrong in ("8/8", "0/0"):
        with pytest.raises(ConfigError, match=f"INDEX from 0 to COUNT - 1, not {wrong}"):
            Shard.parse(wrong)
    with pytest.raises(ConfigError):
        Shard(-1, 8)
    assert Shard.of_environment({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}) == Shard(2, 4)
    # the batch script itself has a number, but is no task of a step
    assert Shard.of_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Shard(0, 1)


# With a real recognizer.


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, speech):
    """The same manifest beside audio of 0.3 to 7 s."""
    directory, rng = tmp_path_factory.mktemp("spoken"), np.random.default_rng(0)
    seconds = rng.uniform(0.3, 7.0, COUNT).round(2)
    for number, duration in enumerate(seconds):
        x = np.resize(np.roll(np.asarray(speech), 5000 * number), round(16_000 * duration))
        soundfile.write(directory / f"{number}.wav", x, 16_000, subtype="FLOAT")
    (directory / "broken.wav").write_text("not audio")
    return write_corpus(directory, seconds)


def test_results_are_the_recognizers(recognizer, spoken, tmp_path):
    lines = spoken.read_text().splitlines()
    manifest = spoken.with_name("short.jsonl")
    manifest.write_text("\n".join([*lines[2:5], lines[-1]]))
    assert transcribe_manifest(recognizer, manifest, tmp_path, LOOKAHEAD, batch_size=2) == (4, 4, 2)
    done, failed = map(rows, merged(tmp_path))
    for row in done:
        alone = recognizer.transcribe(spoken.with_name(row["audio"]), LOOKAHEAD)
        assert (row["text"], tuple(row["tokens"]), row["duration"]) == (alone.text, alone.tokens, alone.duration_s)
    assert "broken.wav: it is not audio" in failed[0]["error"]


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
