import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from experiments.accuracy import study
from experiments.accuracy.conditions import STUDIES, Condition, parse, with_left_context
from experiments.accuracy.listening import TimedWord, changed, delays_s, grouped, joined, noisy, stream, stream_group
from experiments.accuracy.study_report import pareto
from nemojax.config import PRESETS
from nemojax.data import waveform
from nemojax.decoding.arpa import write_arpa
from nemojax.decoding.estimation import estimate
from nemojax.errors import ConfigError
from nemojax.kernels.quantization import pack, quantize
from nemojax.model.parameters import thaw
from nemojax.recognition.hypothesis import Update
from nemojax.recognition.recognizer import Recognizer, load
from tests.data.corpora import write_manifest

LOOKAHEAD = 6


@pytest.fixture(scope="module")
def recognizer(checkpoint_directory):
    return load(checkpoint_directory)


@pytest.fixture(scope="module")
def samples(speech):
    return np.asarray(speech, np.float32)[: 16_000 * 4]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, samples, recognizer):
    """Five recordings, whose texts are the model's at one look-ahead."""
    directory, entries = tmp_path_factory.mktemp("speech"), []
    for number in range(5):
        x = np.roll(samples, 7000 * number)[: 16_000 * (2 + number % 3)]
        soundfile.write(directory / f"{number}.wav", x, 16_000, subtype="FLOAT")
        entries.append({"audio_filepath": f"{number}.wav", "text": recognizer.transcribe(x, LOOKAHEAD).text})
    assert sum(len(entry["text"].split()) for entry in entries) > 8
    return write_manifest(directory / "corpus.jsonl", entries)


# Conditions.


def test_a_condition_is_what_it_is_written_as():
    for condition in (
        Condition(13),
        Condition(6, left=35, dtype="int8", snr=10.0, warm=True),
        Condition(1, group=4, together=True),
        Condition(6, dtype="bfloat16", cache="int8"),
        Condition(0, telephone=True, level=-30.0, group=2, together=True, pause=10.0),
        Condition(13, beam=4, lm="lm.arpa", lm_weight=0.3, boost=2.0),
    ):
        assert parse(str(condition)) == condition
    assert str(Condition(6, snr=10.0, warm=True)) == "lookahead=6,snr=10.0,warm"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("left=35", "names no lookahead"),
        ("lookahead=6,noise=3", "'noise=3', which is none of"),
        ("lookahead=six", "lookahead can't be 'six'"),
        ("lookahead=6,dtype=int4", "dtype must be one of"),
        ("lookahead=6,cache=fp8", "cache must be one of auto, int8, not 'fp8'"),
        ("lookahead=6,warm,together,group=2", "warm and together"),
        ("lookahead=6,group=2,pause=2", "give together too"),
        ("lookahead=6,group=2,together,pause=-1", "pause must be at least 0"),
        ("lookahead=6,beam=0", "beam must be a whole number of at least 1, not 0"),
        ("lookahead=6,beam=4,warm", "warm and beam exclude each other"),
        ("lookahead=6,lm=lm.arpa", "lm=lm.arpa needs its lm_weight, such as 0.3"),
        ("lookahead=6,lm_weight=-1", "lm_weight must be a number from 0 to 100, not -1.0"),
        ("lookahead=6,boost=0.01", "boost must be 0, or from 0.1 to 5, not 0.01"),
        ("lookahead=6,boost=nan", "boost must be 0, or from 0.1 to 5, not nan"),
    ],
)
def test_a_wrong_condition_is_an_error(text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse(text)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("preset", ["0.6b", "tiny"])
def test_studies_differ_in_one_thing_and_fit(name, preset):
    config = PRESETS[preset]
    conditions = STUDIES[name](config)
    assert len(conditions) > 1 and len(set(conditions)) == len(conditions)
    differing = {
        field for field in Condition.__dataclass_fields__ if len({getattr(one, field) for one in conditions}) > 1
    }
    assert len(differing) == 1
    for condition in conditions:
        left = condition.left or config.encoder.left_context_frames
        assert left % (condition.lookahead + 1) == 0


def test_a_shorter_left_context_is_that_of_a_model_built_so(recognizer, samples):
    """Where a recording is shorter than the left context, it changes nothing; where it is longer, it does."""
    shorter = with_left_context(recognizer, LOOKAHEAD, 14)
    assert shorter.config.encoder.left_context_frames == 14
    assert with_left_context(recognizer, LOOKAHEAD, 70) is recognizer
    begin = samples[: 16_000 * 1]  # 13 frames
    assert shorter.transcribe(begin, LOOKAHEAD).tokens == recognizer.transcribe(begin, LOOKAHEAD).tokens


@pytest.mark.parametrize("transform", [pack, quantize])
def test_another_left_context_however_the_kernels_lie(recognizer, samples, transform):
    model = transform(thaw(recognizer.model))
    other = Recognizer(model, recognizer.config, recognizer.tokenizer)
    shorter = with_left_context(other, LOOKAHEAD, 14)
    begin = samples[: 16_000 * 1]
    assert shorter.dtype == other.dtype and shorter.config.encoder.left_context_frames == 14
    assert shorter.transcribe(begin, LOOKAHEAD).tokens == other.transcribe(begin, LOOKAHEAD).tokens


# Streaming.


def test_a_streams_words_are_out_at_the_end_of_their_chunk(recognizer, samples):
    result = stream(recognizer, samples, LOOKAHEAD)
    live, shown = recognizer.stream(LOOKAHEAD), []
    chunk, history = live.chunk_samples, recognizer.config.history_samples
    for begin in range(0, len(samples), chunk):
        live.push(samples[begin : begin + chunk])
    transcript = live.finish()
    for _, _, last in recognizer.tokenizer.words(transcript.tokens):
        samples_needed = (transcript.frames[last] // 7 + 1) * chunk - history
        shown.append(min(samples_needed, len(samples)) / 16_000)
    assert result.text == transcript.text and result.revisions == 0
    assert [word.at_s for word in result.out] == pytest.approx(shown)
    assert [word.word for word in result.out] == [word.text for word in transcript.words]


def test_words_are_out_once_their_last_label_is_final():
    """A beam's labels may become final chunks after their frames, and the last ones at the end of the stream."""
    final = {8960: [(1,), (), (2, 3), ()], 8960 - 1080: [(7, 8), (1,), (), (2, 3), ()]}  # labels after each push
    stub = SimpleNamespace(
        stream=lambda lookahead: StubStream(final),
        config=SimpleNamespace(history_samples=1080),
        tokenizer=SimpleNamespace(words=lambda tokens: [(f"w{token}", i, i) for i, token in enumerate(tokens)]),
    )
    samples = np.zeros(3 * 8960 + 500, np.float32)
    out = stream(stub, samples, LOOKAHEAD).out
    assert [word for word, _ in out] == ["w1", "w2", "w3", "w4"]
    assert [16_000 * at_s for _, at_s in out] == [8960 - 1080, 3 * 8960 - 1080, 3 * 8960 - 1080, len(samples)]
    out = stream(stub, samples, LOOKAHEAD, before=np.zeros(8960 - 1080, np.float32)).out
    assert [16_000 * at_s for _, at_s in out] == [8960, 3 * 8960, 3 * 8960, len(samples)]


class StubStream:
    """A stream whose pushes make given labels final, by the size of the first push; its end makes label 4 final."""

    chunk_samples, text = 8960, ""

    def __init__(self, final):
        self._final, self._labels, self._left = final, [], None

    def push(self, samples):
        self._left = iter(self._final[len(samples)]) if self._left is None else self._left
        self._labels += (new := next(self._left))
        return Update(tokens=new)

    def finish(self):
        return SimpleNamespace(text="", tokens=(*self._labels, 4))


def test_the_delay_is_that_of_waiting(recognizer, samples):
    """The more a chunk holds, the later its words are out."""
    transcript = recognizer.transcribe(samples, 0)
    words = recognizer.tokenizer.words(transcript.tokens)  # a word's time does not count punctuation after it
    ends = [TimedWord(text, round(0.08 * (transcript.frames[last] + 1), 3)) for text, _, last in words]
    delays = delays_s(stream(recognizer, samples, 0).out, ends)
    assert delays and all(-0.07 < delay < 0.1 for delay in delays)


def test_labels_that_differ_are_counted():
    first = [(1, 2, 3), (4, 5), (6,)]
    assert study.differing([(1, 3), (4, 5), (7,)], first) == {"total": 6, "differing": 2, "recordings": 2}
    assert study.differing(first, first) == {"total": 6, "differing": 0, "recordings": 0}
    assert study.differing(first[:1], first) is None


def test_delays_are_of_words_that_are_right():
    ends = [TimedWord("One", 1.0), TimedWord("two,", 2.0), TimedWord("three.", 3.0)]
    out = [TimedWord("one", 1.5), TimedWord("too", 2.2), TimedWord("three", 3.25)]
    assert delays_s(out, ends) == pytest.approx([0.5, 0.25])
    assert delays_s([], ends) == [] and delays_s(out, []) == []


def test_audio_before_a_recording_is_not_counted(recognizer, samples):
    cold = stream_group(recognizer, [samples], Condition(LOOKAHEAD), samples)
    warm = stream_group(recognizer, [samples], Condition(LOOKAHEAD, warm=True), samples)
    assert cold[0].text == stream(recognizer, samples, LOOKAHEAD).text
    assert all(word.at_s > 0 for word in warm[0].out)
    assert max((word.at_s for word in warm[0].out), default=0.0) <= len(samples) / 16_000


def test_a_group_together_is_one_recording(recognizer, samples):
    pieces = [samples[:20_000], samples[20_000:50_000]]
    whole, starts = joined(pieces, 2.0)
    assert len(whole) == 50_000 + 32_000 and starts == [0.0, (20_000 + 32_000) / 16_000]
    whole, starts = joined(pieces)
    assert len(whole) == 50_000 + 8_000 and starts == [0.0, (20_000 + 8_000) / 16_000]
    [result] = stream_group(recognizer, pieces, Condition(LOOKAHEAD, group=2, together=True), None)
    assert result.text == recognizer.transcribe(whole, LOOKAHEAD).text
    apart = stream_group(recognizer, pieces, Condition(LOOKAHEAD, group=2), None)
    assert [one.text for one in apart] == [recognizer.transcribe(piece, LOOKAHEAD).text for piece in pieces]
    assert grouped([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]


def test_noise_has_its_level_and_is_a_function_of_the_seed(samples):
    for snr_db in (20.0, 0.0):
        noise = noisy(samples, snr_db, [0, 3]) - samples
        assert np.array_equal(noisy(samples, snr_db, [0, 3]), samples + noise)
        assert not np.array_equal(noisy(samples, snr_db, [0, 4]), samples + noise)
    loud, soft = (np.square(noisy(samples, db, [0, 3]) - samples).mean() for db in (0.0, 20.0))
    assert loud / soft == pytest.approx(100, rel=0.01)
    assert noisy(samples, None, [0, 3]) is samples


def test_a_recording_is_changed_as_its_condition_says(samples):
    assert changed(samples, Condition(LOOKAHEAD), [0]) is samples
    faint = changed(samples, Condition(LOOKAHEAD, level=-30.0), [0])
    np.testing.assert_allclose(faint, samples * 10**-1.5, rtol=1e-5)
    loud = changed(samples, Condition(LOOKAHEAD, level=40.0), [0])
    assert abs(loud).max() == 1 and np.mean(abs(loud) == 1) > 0.1
    both = changed(samples, Condition(LOOKAHEAD, snr=10.0, telephone=True), [0])
    assert np.array_equal(both, waveform.telephone(noisy(samples, 10.0, [0])))


# The command.


@pytest.fixture
def run(checkpoint_directory, tmp_path, capsys, read_once):
    def run(*arguments):
        output = tmp_path / "rows.jsonl"
        code = study.main([str(checkpoint_directory), *map(str, arguments), "--output", str(output)])
        rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
        captured = capsys.readouterr()
        return code, rows, captured.out, captured.err

    return run


def test_the_study_of_lookaheads(run, manifest, tmp_path):
    code, rows, out, _ = run(manifest, "--plot", tmp_path / "plot.svg", "--resamples", 50)
    assert code == 0 and [row["lookahead"] for row in rows] == [13, 6, 1, 0]
    assert rows[1]["wer"]["rate"] == 0 and rows[1]["cer"]["rate"] == 0  # whose texts these are
    assert all(row["revisions"] == 0 and row["real_time_factor"] > 0 for row in rows)
    delays = [row["delay_ms"]["mean"] for row in rows if row["delay_ms"]]
    assert delays[-1] < min(delays[:-1])  # the shortest chunk says it first
    assert len(out.splitlines()) == 2 + 4 and (tmp_path / "plot.svg").stat().st_size > 5_000


def test_conditions_are_compared_with_the_first(run, manifest):
    code, rows, _, _ = run(manifest, "--conditions", "lookahead=6", "lookahead=6,snr=-20", "--resamples", 200)
    assert code == 0 and [row["condition"] for row in rows] == ["lookahead=6", "lookahead=6,snr=-20.0"]
    assert rows[0]["p_value"] == 1.0 and rows[1]["wer"]["rate"] > 0.3 and rows[1]["wer_difference"]["rate"] > 0.3


def test_a_search_with_a_language_model_and_key_words(run, manifest, tmp_path, recognizer):
    tokenizer, lm, phrases = recognizer.tokenizer, tmp_path / "lm.arpa", tmp_path / "names.txt"
    texts = [json.loads(line)["text"] for line in manifest.read_text().splitlines()]
    phrases.write_text(min(" ".join(texts).split(), key=len) + "\n")
    write_arpa(lm, estimate(map(tokenizer.encode, texts), tokenizer.size, 3))
    conditions = ["lookahead=6", "lookahead=6,beam=2,lm_weight=2.0,boost=5"]
    arguments = ["--conditions", *conditions, "--lm", lm, "--phrases", phrases, "--resamples", 50]
    code, rows, out, _ = run(manifest, *arguments)
    assert code == 0 and [row["lm"] for row in rows] == [None, str(lm)]
    found = rows[0]["key_words"]  # of the transcripts that the texts are
    assert found["listed"] == 1 and found["found"] == found["spoken"] >= 1 and found["false_alarms"]["count"] == 0
    assert rows[1]["key_words"]["spoken"] == found["spoken"] and rows[1]["condition"] == conditions[1] + ".0"
    assert rows[1]["labels"]["differing"] > 0 == rows[0]["labels"]["differing"]
    assert "key words found, %" in out


def test_words_of_the_manifest_are_their_ends(run, manifest, tmp_path, samples, recognizer):
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    words = recognizer.transcribe(samples, LOOKAHEAD).words
    entry = {"audio_filepath": "a.wav", "text": " ".join(word.text for word in words)}
    for name, shift_s in (("early", 0.0), ("late", 0.5)):
        aligned = [[word.text, word.start_s, word.end_s - shift_s] for word in words]
        write_manifest(tmp_path / f"{name}.jsonl", [{**entry, "words": aligned}])
    code, rows, _, _ = run(tmp_path / "early.jsonl", tmp_path / "late.jsonl", "--conditions", f"lookahead={LOOKAHEAD}")
    early, late = (row["delay_ms"]["mean"] for row in rows)
    assert code == 0 and late - early == pytest.approx(500, abs=1)


def test_long_form_is_scored_group_by_group(run, manifest):
    code, rows, _, _ = run(manifest, "--study", "long-form", "--resamples", 50)
    assert code == 0 and [(row["utterances"], row["together"]) for row in rows] == [(2, False), (2, True)]
    assert rows[0]["wer"]["reference"] == rows[1]["wer"]["reference"]


def test_bad_recordings_are_reported_and_the_others_scored(run, manifest, tmp_path):
    broken = tmp_path / "broken.jsonl"
    good = json.loads(manifest.read_text().splitlines()[0])
    lines = [{**good, "audio_filepath": str(manifest.parent / "0.wav")}, {"audio_filepath": "no.wav", "text": "x"}]
    lines += [{**lines[0], "words": [["only", "two"]]}]
    write_manifest(broken, lines)
    code, rows, _, err = run(broken, "--conditions", "lookahead=6")
    assert code == 1 and rows[0]["utterances"] == 1
    assert "no.wav" in err and "`words` must be a list" in err


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--conditions", "lookahead=2"], "lookahead 2 does not fit"),
        (["--conditions", "lookahead=6", "lookahead=6,group=2"], "groups of one size"),
        (["--limit", "0"], "at least 1"),
        (["--study", "boost"], "lookahead=13,boost=0.5 needs key words: name their file with --phrases FILE"),
        (["--study", "lm-weight"], "lookahead=13,lm_weight=0.1 needs a language model: name one with --lm FILE"),
        (["--study", "noise", "--also", "snr=5"], "--also snr=5 can't be given: it is what the study noise compares"),
        (
            ["--conditions", "lookahead=6", "--also", "snr=5"],
            "--also is for a study; give snr=5 with each of --conditions",
        ),
        (["--lm", "no.arpa"], "there is no file no.arpa"),
        (["--conditions", "lookahead=6", "lookahead=6,beam=65"], "at most 64"),
    ],
)
def test_a_wrong_setting_is_an_error(run, manifest, arguments, complaint):
    code, rows, _, err = run(manifest, *arguments)
    assert code == 2 and complaint in err and not rows


def test_pareto_keeps_the_points_that_no_other_beats():
    assert pareto([(3, 1), (1, 5), (2, 5), (2, 2), (4, 1)]) == [(1, 5), (2, 2), (3, 1)]
