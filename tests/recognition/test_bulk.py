"""Bulk jobs, with a recognizer that needs no model; the last tests have a real one."""

import gzip
import json
import tracemalloc

import pytest

from nemojax.audio.manifest import Manifest
from nemojax.errors import AudioError, ConfigError
from nemojax.model.parameters import thaw
from nemojax.recognition import bulk
from nemojax.recognition.bulk import PARTS, TRANSCRIPTS, Shard, transcribe_manifest
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.transcript import Transcript
from tests.data.corpora import write_manifest
from tests.helpers.messages import ending
from tests.recognition.jobs import COUNT, FAILED, LOOKAHEAD, TRICKY, StubRecognizer, merged, rows


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


def test_directories_that_can_not_be_written(stub, manifest, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"file.* can't be read or written: (Not a directory|File exists)"):
            transcribe_manifest(stub, manifest, output, LOOKAHEAD)
    with pytest.raises(AudioError, match=ending(": the manifest can't be read (No such file or directory)")):
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


def test_models_of_the_same_sizes_have_other_fingerprints(recognizer):
    model = thaw(recognizer.model)
    model.joint.output.bias[...] = model.joint.output.bias[...].at[0].add(1e-3)
    other = Recognizer(model, recognizer.config, recognizer.tokenizer)
    assert other.parameters == recognizer.parameters and other.fingerprint != recognizer.fingerprint
    assert recognizer.with_reset(1.0).fingerprint == recognizer.fingerprint
