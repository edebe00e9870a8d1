import json
import sys

import numpy as np
import pytest
import soundfile

from experiments.accuracy import evaluate, report, scoring
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from nemojax.metrics import compare, plain, total
from nemojax.recognition.recognizer import Recognizer, load
from tests.data.corpora import write_manifest

LOOKAHEAD = 6
SECONDS = (2.5, 5.0, 0.5, 3.0)


@pytest.fixture(scope="module")
def recognizer(checkpoint_directory) -> Recognizer:
    """As the command loads it, so that what is compiled for the one is for the other."""
    return load(checkpoint_directory)


@pytest.fixture(scope="module")
def transcribed(tmp_path_factory, speech, recognizer):
    """A directory of recordings, and the model's text of each at one look-ahead."""
    directory, names = tmp_path_factory.mktemp("speech"), [f"{number}.wav" for number in range(len(SECONDS))]
    for number, seconds in enumerate(SECONDS):
        x = np.roll(np.asarray(speech), 9000 * number)[: int(16_000 * seconds)]
        soundfile.write(directory / f"{number}.wav", x, 16_000, subtype="FLOAT")
    transcripts = recognizer.transcribe([directory / name for name in names], LOOKAHEAD)
    found = {name: transcript.text for name, transcript in zip(names, transcripts, strict=True)}
    assert len(plain(found["1.wav"]).split()) > 2  # enough to be wrong about
    return directory, found


@pytest.fixture(scope="module")
def manifest(transcribed):
    """References against which the model has two deletions, one substitution, no error, and one insertion."""
    directory, found = transcribed
    _, *rest = plain(found["1.wav"]).split()
    texts = {
        "0.wav": plain(found["0.wav"]) + " some more",
        "1.wav": " ".join(["notthis", *rest]),
        "2.wav": plain(found["2.wav"]),
        "3.wav": " ".join(plain(found["3.wav"]).split()[1:]),
    }
    entries = [
        {"audio_filepath": name, "text": text, "speaker": f"s{index // 2}"}
        for index, (name, text) in enumerate(texts.items())
    ]
    return write_manifest(directory / "corpus.jsonl", entries)


@pytest.fixture
def run(checkpoint_directory, tmp_path, capsys, recognizer, read_once):
    """The command in this process: exit code, rows, standard output and error."""

    def run(*arguments, model=checkpoint_directory):
        output = tmp_path / "rows.jsonl"
        code = evaluate.main([str(model), *map(str, arguments), "--output", str(output)])
        rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, rows, captured.out, captured.err

    return run


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_known_errors_are_found(recognizer, manifest, transcribed, stream, batch_size):
    seconds = []
    scored = scoring.evaluate(
        recognizer, expand_manifest(manifest), LOOKAHEAD, batch_size, stream=stream, progress=seconds.append
    )
    assert [utterance.name for utterance in scored] == list(transcribed[1])
    assert [utterance.position for utterance in scored] == [0, 1, 2, 3]
    assert [utterance.hypothesis for utterance in scored] == list(transcribed[1].values())
    assert [utterance.words[:3] for utterance in scored] == [(0, 2, 0), (1, 0, 0), (0, 0, 0), (0, 0, 1)]
    assert [utterance.words.reference for utterance in scored] == [
        len(entry.text.split()) for entry in expand_manifest(manifest)
    ]
    assert scored[0].characters[:3] == (0, 10, 0) and scored[2].characters.errors == 0
    assert [utterance.duration_s for utterance in scored] == list(SECONDS) and sum(seconds) == pytest.approx(11.0)


def test_texts_are_normalized(recognizer, transcribed):
    directory, found = transcribed
    recording = Recording(directory / "1.wav", "1.wav", text=found["1.wav"].upper() + "!")
    scored, *_ = scoring.evaluate(recognizer, [recording] * 4, LOOKAHEAD)
    assert scored.words.errors == scored.characters.errors == 0 and scored.words.reference > 2
    assert scored.case.errors == scored.case.reference == scored.words.reference
    assert scored.punctuation.deletions == 1
    scored, *_ = scoring.evaluate(recognizer, [recording] * 4, LOOKAHEAD, normalize=lambda text: text)
    assert scored.words.errors == scored.words.reference == len(found["1.wav"].split())


@pytest.mark.parametrize("stream", [False, True])
def test_bad_recordings_are_reported_and_the_others_scored(recognizer, transcribed, stream):
    directory, found = transcribed
    (directory / "broken.wav").write_text("not audio at all")
    good = Recording(directory / "0.wav", "0.wav", text=found["0.wav"])
    entries = [
        AudioError("corpus.jsonl: line 1: it is not JSON"),
        Recording(directory / "broken.wav", "broken.wav", text="x"),
        good,
        Recording(directory / "missing.wav", "missing.wav", text="x"),
        Recording(directory / "1.wav", "1.wav"),
        Recording(directory / "0.wav", "0.wav", text=""),
    ]
    errors = []
    scored = scoring.evaluate(recognizer, entries, LOOKAHEAD, stream=stream, report=errors.append)
    assert [utterance.position for utterance in scored] == [2, 5] and scored[0].words.errors == 0
    assert scored[1].words.insertions == len(plain(found["0.wav"]).split()) and scored[1].words.reference == 0
    for error, name in zip(errors, ("line 1", "broken.wav", "missing.wav", "1.wav: .* no text"), strict=True):
        with pytest.raises(AudioError, match=name):
            raise error


def test_rows_and_table(run, recognizer, manifest, tmp_path):
    code, rows, out, err = run(manifest, "--lookaheads", 6, 1, "--utterances", tmp_path / "all.jsonl", "--seed", 3)
    assert code == 0 and not err and [row["lookahead"] for row in rows] == [6, 1]
    row, other = rows
    scored = [scoring.evaluate(recognizer, expand_manifest(manifest), r) for r in (6, 1)]
    words = [[utterance.words for utterance in each] for each in scored]
    reference = total(words[0]).reference
    wer = row["wer"]
    assert (wer["substitutions"], wer["deletions"], wer["insertions"], wer["reference"]) == (1, 2, 1, reference)
    assert wer["rate"] == pytest.approx(4 / reference, abs=1e-6) and 0 <= wer["low"] < wer["rate"] < wer["high"]
    assert other["wer"]["rate"] == pytest.approx(total(words[1]).rate, abs=1e-6)
    assert row["case_error"] is row["punctuation_error"] is None  # the references have neither
    assert (row["chunk_ms"], other["chunk_ms"], row["mode"], row["batch_size"]) == (560, 160, "offline", 16)
    assert (row["utterances"], row["failed"], row["audio_s"]) == (4, 0, 11.0) and row["real_time_factor"] > 0
    assert row["seed"] == 3 and row["normaliser"] == "plain" and row["dtype"] == "float32" and row["device"]
    assert row["versions"]["rapidfuzz"] and {"commit", "cpu", "cores", "load", "time"} <= set(row)
    found = compare(*words, seed=3)
    assert other["against"] == 6 and other["p_value"] == pytest.approx(found.p_value, abs=1e-6)
    assert other["wer_difference"]["rate"] == pytest.approx(found.difference, abs=1e-6) and row["p_value"] == 1

    head, rule, *lines = (line.strip("| ").split(" | ") for line in out.splitlines())
    assert len(lines) == 2 and len(rule) == len(head) and head[:3] == ["manifest", "look-ahead", "delay, ms"]
    percent = [f"{100 * wer[name]:.2f}" for name in ("rate", "low", "high")]
    shown = f"{percent[0]} [{percent[1]}, {percent[2]}]"
    assert lines[0][:6] == ["corpus", "6", "560", "4", shown, f"1 + 2 + 1, {reference}"]
    assert lines[0][9] == ""  # it is not compared with itself
    assert lines[1][:3] == ["corpus", "1", "160"] and f"{found.p_value:.3f}" in lines[1]

    spoken = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(line["lookahead"], line["name"]) for line in spoken] == [(r, f"{i}.wav") for r in (6, 1) for i in range(4)]
    assert spoken[0]["reference"].endswith(" some more") and spoken[0]["words"]["deletions"] == 2
    assert spoken[0]["hypothesis"] == scored[0][0].hypothesis

    run(manifest, "--lookaheads", 6, "--utterances", tmp_path / "all.jsonl")
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 4  # replaced
    code, rows, *_ = run(manifest, "--lookaheads", 6, 6)
    assert [row["lookahead"] for row in rows] == [6, 1, 6, 6]  # added to; the same look-ahead once


def test_streaming_gives_the_same_rates(run, manifest, monkeypatch):
    code, (offline,), *_ = run(manifest, "--lookaheads", 1)
    assert code == 0
    monkeypatch.delattr(Recognizer, "transcribe_each")  # not side by side
    code, (_, stream), *_ = run(manifest, "--lookaheads", 1, "--stream")
    assert code == 0 and (stream["mode"], stream["batch_size"]) == ("stream", 1)
    assert all(stream[name] == offline[name] for name in ("wer", "cer", "audio_s"))


@pytest.mark.parametrize("flags", [[], ["--stream"]])
def test_the_same_settings_and_seed_give_the_same_numbers(run, manifest, tmp_path, flags):
    texts = [tmp_path / "one.jsonl", tmp_path / "two.jsonl", tmp_path / "three.jsonl"]
    for path, seed in zip(texts, (0, 0, 1), strict=True):
        code, rows, *_ = run(
            manifest, "--lookaheads", 6, 1, *flags, "--seed", seed, "--resamples", 30, "--utterances", path
        )
        assert code == 0
    timing = {"time", "load", "real_time_factor"}
    seeds = [row.pop("seed") for row in rows]
    rows = [{name: value for name, value in row.items() if name not in timing} for row in rows]
    assert rows[:2] == rows[2:4] and texts[0].read_bytes() == texts[1].read_bytes()
    # another seed draws other sets, of the same texts
    assert seeds == [0, 0, 0, 0, 1, 1] and rows[4:] != rows[:2] and texts[2].read_bytes() == texts[0].read_bytes()


def test_case_and_punctuation_where_the_references_have_them(run, transcribed):
    directory, found = transcribed
    first, *rest = plain(found["1.wav"]).split()
    entries = [{"audio_filepath": "0.wav", "text": f"{plain(found['0.wav'])}."}]
    entries += [{"audio_filepath": "1.wav", "text": " ".join([first.upper(), *rest])}]
    code, (row,), out, _ = run(write_manifest(directory / "cased.jsonl", entries), "--lookaheads", LOOKAHEAD)
    assert code == 0 and row["case_error"]["reference"] == row["wer"]["reference"]
    assert row["case_error"]["substitutions"] >= 1 and row["punctuation_error"]["reference"] == 1
    shown = f"{100 * row['case_error']['rate']:.2f} ["
    assert shown in out and row["wer"]["rate"] == 0
    code, (_, asis), *_ = run(directory / "cased.jsonl", "--lookaheads", LOOKAHEAD, "--normalizer", "none")
    assert code == 0 and asis["wer"]["substitutions"] >= 2 and asis["normaliser"] == "none"


def test_drawing_speakers_rather_than_utterances(run, manifest, transcribed, recognizer):
    _, (utterances,), *_ = run(manifest, "--lookaheads", 6)
    code, (_, speakers), *_ = run(manifest, "--lookaheads", 6, "--draw", "speakers")
    assert code == 0 and speakers["draw"] == "speakers" and speakers["wer"]["rate"] == utterances["wer"]["rate"]
    # of two speakers, a set holds the one, the other, or both
    scores = [utterances["wer"]["rate"], speakers["wer"]["low"], speakers["wer"]["high"]]
    assert scores[1] < scores[0] < scores[2] and speakers["wer"]["low"] != utterances["wer"]["low"]
    words = [[u.words for u in scoring.evaluate(recognizer, expand_manifest(manifest), r)] for r in (6, 1)]
    expected = compare(*words, blocks=["s0", "s0", "s1", "s1"])
    assert expected.low != compare(*words).low
    _, rows, *_ = run(manifest, "--lookaheads", 6, 1, "--draw", "speakers")
    assert rows[-1]["wer_difference"]["low"] == pytest.approx(expected.low, abs=1e-6)
    entries = [{"audio_filepath": "0.wav", "text": "x", "speaker": "s"}, {"audio_filepath": "1.wav", "text": "x"}]
    without = write_manifest(transcribed[0] / "without.jsonl", entries)
    code, _, _, err = run(without, "--draw", "speakers")
    assert code == 2 and "without.jsonl: line 2: --draw speakers needs its speaker, which is None" in err
    one = write_manifest(transcribed[0] / "one.jsonl", [{**entry, "speaker": "s"} for entry in entries])
    code, rows, out, _ = run(one, "--lookaheads", 6, "--draw", "speakers")
    assert code == 0 and rows[-1]["wer"]["low"] is None and f"| {100 * rows[-1]['wer']['rate']:.2f} |" in out


def test_a_limit_is_spread_over_the_manifest(run, manifest, tmp_path):
    code, (row,), *_ = run(manifest, "--lookaheads", 6, "--limit", 2, "--utterances", tmp_path / "all.jsonl")
    names = [json.loads(line)["name"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert code == 0 and row["utterances"] == 2 and row["limit"] == 2 and names == ["0.wav", "2.wav"]
    _, rows, *_ = run(manifest, "--lookaheads", 6, "--limit", 9)
    assert rows[-1]["utterances"] == 4


@pytest.mark.parametrize("flags", [[], ["--stream"]])
def test_unreadable_recordings_are_named_once_and_exit_with_1(run, transcribed, tmp_path, flags):
    directory, found = transcribed
    entries = [
        *({"audio_filepath": name, "text": text} for name, text in found.items()),
        {"audio_filepath": "missing.wav", "text": "x"},
        {"audio_filepath": "1.wav"},
    ]
    bad = write_manifest(directory / "bad.jsonl", entries)
    bad.write_text(bad.read_text() + "not json\n")
    nowhere = tmp_path / "nowhere.jsonl"
    code, rows, out, err = run(bad, nowhere, "--lookaheads", 6, 1, *flags)
    assert code == 1 and [row["utterances"] for row in rows] == [4, 4, 0, 0]
    assert [row["failed"] for row in rows] == [3, 3, 1, 1] and "4 (3 failed)" in out and "0 (1 failed)" in out
    assert rows[0]["wer"]["rate"] == 0 and rows[2]["wer"]["rate"] is rows[2]["real_time_factor"] is None
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)
    for name in ("missing.wav", "1.wav: its line in the manifest has no text", "bad.jsonl: line 7", "nowhere.jsonl"):
        assert any(name in line for line in lines), (name, err)


def test_the_plot(run, manifest, transcribed, tmp_path):
    (transcribed[0] / "elsewhere").mkdir(exist_ok=True)
    entries = [{"audio_filepath": str(transcribed[0] / name), "text": "x y"} for name in transcribed[1]]
    same_name = write_manifest(transcribed[0] / "elsewhere" / "corpus.jsonl", entries)
    code, rows, *_ = run(manifest, same_name, "--lookaheads", 6, 1, "--plot", tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert code == 0 and drawn.startswith("<?xml")
    for text in (str(manifest), str(same_name), "R = 6", "560", "R = 1", "160", "WER in %"):  # labels differ
        assert text in drawn
    report.plot(rows, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text() == drawn
    report.plot(rows, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


def test_points_and_error_bars(monkeypatch, tmp_path):
    from matplotlib.axes import Axes

    calls = []
    real = Axes.errorbar
    monkeypatch.setattr(Axes, "errorbar", lambda *args, **keys: (calls.append((args, keys)), real(*args, **keys))[1])
    row = lambda lookahead, chunk_ms, rate, low, high: {
        "label": "grid",
        "lookahead": lookahead,
        "chunk_ms": chunk_ms,
        "wer": {"rate": rate, "low": low, "high": high},
    }
    rows = [row(13, 1120.0, 0.04, 0.03, 0.06), row(0, 80.0, 0.1, None, None), row(1, 160.0, None, None, None)]
    report.plot(rows, tmp_path / "a.svg")
    ((args, keys),) = calls
    assert keys["label"] == "grid" and args[1] == [80, 1120] and args[2] == pytest.approx([10, 4])
    assert args[3][0] == pytest.approx([0, 1]) and args[3][1] == pytest.approx([0, 2])


def test_what_is_wrong_exits_with_2(run, manifest, tmp_path, monkeypatch):
    for arguments, options, message in (
        ([manifest], {"model": tmp_path / "nowhere"}, "nowhere is not a directory"),
        ([], {}, "name at least one manifest"),
        ([manifest, "--lookaheads", 6, 2], {}, "lookahead 2 does not fit"),
        ([manifest, "--batch-size", 0], {}, "--batch-size must be at least 1, not 0"),
        ([manifest, "--limit", 0], {}, "--limit must be at least 1, not 0"),
        ([manifest, "--confidence", 95], {}, "--confidence must be between 0 and 1, not 95.0"),
        ([manifest, "--plot", tmp_path / "a.gif"], {}, "a plot is one of svg, png, pdf"),
        ([manifest, "--plot", tmp_path / "none" / "a.svg"], {}, "there is no directory"),
        ([manifest, "--utterances", tmp_path / "none" / "a.jsonl"], {}, "can't be written (No such file"),
    ):
        code, rows, out, err = run(*arguments, **options)
        assert code == 2 and message in err and err.count("\n") == 1 and not out and not rows
    for module, flags in (
        ("matplotlib", ["--plot", "a.svg"]),
        ("whisper_normalizer.english", ["--normalizer", "whisper"]),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        code, _, _, err = run(manifest, *flags)
        assert code == 2 and "nemojax[experiments]" in err


@pytest.mark.parametrize("wrong", [["--lookahead", "6"], ["--normalizer", "plane"], ["--limit", "few"]])
def test_a_misspelt_setting_exits_with_2(manifest, checkpoint_directory, capsys, wrong):
    with pytest.raises(SystemExit) as exit:
        evaluate.main([str(checkpoint_directory), str(manifest), *wrong])
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert exit.value.code == 2 and wrong[0] in printed and "Traceback" not in printed
