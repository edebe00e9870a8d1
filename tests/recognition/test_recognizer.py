import copy
import functools
import inspect
import io

import jax
import numpy as np
import pytest
import soundfile
import soxr

import nemojax
from nemojax import streaming
from nemojax.audio.source import open_audio
from nemojax.errors import AudioError, CheckpointError, ConfigError, TranscriptionError
from nemojax.model.parameters import fill, named_parameters
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import StreamBatch, step_jit
from tests.helpers.messages import ending, whole

LOOKAHEADS = [0, 1, 6, 13]
LENGTHS = [102_400, 40_000, 0, 23_456, 1, 17_960, 16_840, 60_000, 200]


@pytest.fixture(scope="module")
def recordings(speech):
    return [np.asarray(speech)[:n] for n in LENGTHS]


@pytest.fixture(scope="module")
def reference(recognizer, recordings):
    """(tokens, frames) by the pure layer, one recording and one chunk at a time."""

    cut = jax.jit(streaming.segments_of, static_argnums=(2, 3, 4))

    def transcribe(x, lookahead):
        model, constants = recognizer.model, recognizer.constants
        padded = np.zeros((1, -(-len(x) // 8000) * 8000), np.float32)  # few lengths are few compilations
        padded[0, : len(x)] = x
        segments = jax.device_get(cut(padded, np.array([len(x)], np.int32), lookahead, 1, recognizer.config))
        state, tokens, frames = streaming.init_state(model, constants, 1), [], []
        for i in range(segments.samples.shape[0]):
            segment = streaming.Segment(*(a[i] for a in segments))
            state, emission = step_jit(model, constants, state, segment, lookahead=lookahead)
            n = int(emission.length[0])
            tokens += emission.labels[0, :n].tolist()
            frames += emission.frames[0, :n].tolist()
        return tuple(tokens), tuple(frames)

    return {r: [transcribe(x, r) for x in recordings] for r in LOOKAHEADS}


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_list_in_any_batch(recognizer, recordings, reference, lookahead, batch_size):
    transcripts = recognizer.transcribe(recordings, lookahead, batch_size=batch_size)
    assert [(t.tokens, t.frames) for t in transcripts] == reference[lookahead]
    assert [t.duration_s for t in transcripts] == [n / 16_000 for n in LENGTHS]
    assert all(t.mode == "offline" and t.lookahead == lookahead for t in transcripts)
    assert len(transcripts[0].tokens) > 3 and transcripts[0].text == recognizer.tokenizer.decode(transcripts[0].tokens)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_a_stream_in_pieces_of_any_size(recognizer, recordings, reference, lookahead):
    rng = np.random.default_rng(lookahead)
    for x, expected in list(zip(recordings, reference[lookahead], strict=True))[1:]:
        stream, shown, tokens, frames = recognizer.stream(lookahead), "", (), ()
        at = 0
        while at < len(x):
            size = int(rng.choice([0, 1, 159, 1280, rng.integers(1, 30_000)]))
            update = stream.push(x[at : at + size])
            shown, tokens, frames = shown + update.text, tokens + update.tokens, frames + update.frames
            at += size
        assert shown == stream.text
        transcript = stream.finish()
        assert (transcript.tokens, transcript.frames) == expected and transcript.mode == "stream"
        assert tokens == expected[0][: len(tokens)] and transcript.text == stream.text
        assert transcript.text.startswith(shown) and transcript.duration_s == len(x) / 16_000
        assert stream.finish() == transcript


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_a_chunk_is_computed_with_its_last_sample(recognizer, speech, lookahead, monkeypatch):
    """1280 R + 200 samples for the first chunk, 1280 (R + 1) more for each later one; not one sample later."""
    steps, step = [], StreamBatch.step
    monkeypatch.setattr(StreamBatch, "step", lambda batch, given: (steps.append(1), step(batch, given))[1])
    stream, x = recognizer.stream(lookahead), np.asarray(speech)
    for k in range(2):
        begin = 1280 * (lookahead + 1) * k
        stream.push(x[max(begin - 1080, 0) : begin + 1280 * lookahead + 199])
        assert len(steps) == k
        stream.push(x[begin + 1280 * lookahead + 199 : begin + 1280 * lookahead + 200])
        assert len(steps) == k + 1


def test_int16_is_the_same_audio(recognizer, speech):
    pcm = (np.asarray(speech) * 32_767).astype(np.int16)
    streams = [recognizer.stream(6), recognizer.stream(6)]
    tokens = [stream.push(x).tokens for stream, x in zip(streams, (pcm, pcm / np.float32(32_768)), strict=True)]
    assert tokens[0] == tokens[1] and tokens[0]
    assert recognizer.transcribe(pcm, 6).tokens[: len(tokens[0])] == tokens[0]


def test_silence_is_an_empty_text(recognizer, tiny_model):
    # a model that has learned to be silent: no label is likelier than blank
    arrays = named_parameters(tiny_model)
    arrays["joint.output.bias"] = arrays["joint.output.bias"].at[recognizer.config.blank].add(100.0)
    model = fill(recognizer.config, arrays)
    quiet = Recognizer(model, recognizer.config, recognizer.tokenizer)
    stream = quiet.stream(1)
    assert stream.push(np.zeros(40_000, np.float32)).text == ""
    assert stream.finish().text == quiet.transcribe(np.zeros(40_000, np.float32)).text == ""


def test_bad_recordings_of_a_list_do_not_stop_the_others(recognizer, recordings, reference, tmp_path):
    good, broken = tmp_path / "good.wav", tmp_path / "broken.wav"
    soundfile.write(good, recordings[1], 16_000, subtype="FLOAT")
    broken.write_bytes(b"not audio at all")
    nan = recordings[1].copy()
    nan[30_000] = np.nan
    sources = [broken, good, tmp_path / "missing.wav", nan, recordings[3]]
    with pytest.raises(TranscriptionError, match="3 of 5 recordings could not be transcribed") as caught:
        recognizer.transcribe(sources, 6, batch_size=2)
    assert sorted(caught.value.errors) == [0, 2, 3] and "missing.wav" in str(caught.value)
    done = caught.value.transcripts
    assert [t and t.tokens for t in done] == [None, reference[6][1][0], None, None, reference[6][3][0]]
    with pytest.raises(AudioError, match=ending(": it is not audio, but text")):
        recognizer.transcribe(broken)


def test_sources_of_every_kind(recognizer, recordings, reference, tmp_path):
    stereo = np.stack([recordings[1]] * 2, axis=1)
    path = tmp_path / "two.wav"
    soundfile.write(path, stereo, 16_000, subtype="FLOAT")
    sources = [str(path), path, open_audio(path), stereo, recordings[1]]
    transcripts = recognizer.transcribe(sources, 1)
    assert [t.tokens for t in transcripts] == [reference[1][1][0]] * 5
    assert [bool(t.notes) for t in transcripts] == [True] * 4 + [False]
    assert recognizer.transcribe([]) == []
    alone = recognizer.transcribe(recordings[1], 1)
    assert (alone.text, alone.tokens, alone.frames) == (
        transcripts[4].text,
        transcripts[4].tokens,
        transcripts[4].frames,
    )


def test_what_python_programs_bring(recognizer, recordings, reference):
    pcm = (recordings[1] * 32_767).astype(np.int16)
    transcribe = functools.partial(recognizer.transcribe, lookahead=1, batch_size=1)  # one compiled step for all
    expected = transcribe(pcm)
    file = io.BytesIO()
    soundfile.write(file, pcm, 16_000, format="WAV")
    data = file.getvalue()
    file.seek(0)
    sources = [data, file, {"array": pcm, "sampling_rate": 16_000}, pcm[None], pcm.astype(np.int32) << 16]
    assert [transcript.tokens for transcript in transcribe(sources)] == [expected.tokens] * len(sources)
    assert transcribe((pcm, 16_000)) == transcribe((16_000, pcm)) == expected  # a pair is one recording
    assert transcribe(pcm.tobytes(), raw="s16le").tokens == expected.tokens
    stereo = np.stack([0 * pcm, pcm], axis=1)
    assert transcribe(stereo, channel=1).tokens == expected.tokens
    assert transcribe(nemojax.open_channels(stereo))[1].tokens == expected.tokens


@pytest.mark.parametrize(
    "source,message",
    [
        ([0.1, 0.2], r"a list of numbers can be samples or recordings; pass numpy\.asarray\(samples\)"),
        ([np.float32(0.1)], "a list of numbers"),
        ([[0.1, 0.2], [0.3]], "a list of numbers"),
        ({"a.wav"}, "to transcribe several recordings, pass a list"),
        (np.array(["a.wav"]), "to transcribe several recordings, pass a list"),
        (iter(["a.wav"]), "to transcribe several recordings, pass a list"),
    ],
)
def test_ambiguous_inputs_are_refused(recognizer, source, message):
    with pytest.raises(AudioError, match=message):
        recognizer.transcribe(source)


@pytest.mark.parametrize("sources", ["a.wav", b"RIFF", io.BytesIO(), np.zeros(5), {"array": [0.0]}])
def test_transcribe_each_takes_several_recordings(recognizer, sources):
    with pytest.raises(AudioError, match=whole("transcribe_each takes several recordings; for one, pass a list of it")):
        next(recognizer.transcribe_each(sources))


@pytest.mark.parametrize("rate_hz", [8000, 44_100])
def test_a_stream_at_any_rate_however_it_is_cut(recognizer, recordings, rate_hz):
    samples = soxr.resample(recordings[1], 16_000, rate_hz)
    expected = recognizer.transcribe(samples, 1, sample_rate_hz=rate_hz)
    assert expected.tokens
    for size in (1, rate_hz // 50, rate_hz // 10, 7919, len(samples)):
        stream = recognizer.stream(1, rate_hz)
        ends = range(size, len(samples), size) if size > 1 else range(1, 500)
        for piece in np.split(samples, ends):
            stream.push(piece)
        assert stream.duration_s == len(samples) / rate_hz
        transcript = stream.finish()
        assert (transcript.tokens, transcript.frames) == (expected.tokens, expected.frames)
        assert transcript.duration_s == expected.duration_s and transcript.notes == (f"resampled from {rate_hz} Hz",)


def test_a_stream_of_telephone_bytes(recognizer, recordings):
    pcm = (soxr.resample(recordings[1], 16_000, 8000) * 32_767).astype("<i2").tobytes()
    stream = recognizer.stream(1, raw="s16le,8000")
    for begin in range(0, len(pcm), 333):  # within a sample
        stream.push(pcm[begin : begin + 333])
    assert stream.finish().tokens == recognizer.transcribe(pcm, 1, raw="s16le,8000").tokens


def test_progress_counts_every_second(recognizer, recordings):
    seconds = []
    list(recognizer.transcribe_each(iter(recordings), 13, 4, progress=seconds.append))
    assert sum(seconds) == pytest.approx(sum(LENGTHS) / 16_000)


def test_what_a_stream_refuses(recognizer, speech):
    stream = recognizer.stream(1)
    first = stream.push(np.asarray(speech)[:30_000])
    with pytest.raises(AudioError, match=whole("stream: sample 1 of those pushed is nan, not audio")):
        stream.push(np.array([0.0, np.nan], np.float32))
    with pytest.raises(
        AudioError, match=whole("stream: a stream takes one channel of samples, [N]; these have the shape [10, 2]")
    ):
        stream.push(np.zeros((10, 2), np.float32))
    with pytest.raises(AudioError):
        stream.push(np.zeros(10, np.int64))
    other = recognizer.stream(1)
    assert other.push(np.asarray(speech)[:30_000]) == first
    assert stream.push(np.asarray(speech)[30_000:]) == other.push(np.asarray(speech)[30_000:])  # as it was before
    stream.finish()
    with pytest.raises(ValueError, match=whole("this stream is finished; begin another with recognizer.stream()")):
        stream.push(np.zeros(1, np.float32))
    with pytest.raises(ConfigError, match=whole("the sample rate of a stream is 1000 to 1000000 Hz, not 80")):
        recognizer.stream(1, sample_rate_hz=80)
    with pytest.raises(
        ConfigError,
        match=whole(
            "lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 frames; this "
            "model was trained with (13, 6, 1, 0)"
        ),
    ):
        recognizer.stream(2)


def test_loading(checkpoint_directory, recognizer, recordings, reference):
    loaded = nemojax.load(checkpoint_directory)
    assert loaded.dtype == "float32" and loaded.origin == {"source": "made.nemo"}
    assert loaded.transcribe(recordings[1], 6).tokens == reference[6][1][0]
    options = {"xla_cpu_enable_fast_math": False}
    half = nemojax.load(checkpoint_directory, dtype="bfloat16", compiler_options=options, reset_prediction_after_s=2.0)
    assert half.compiler_options == options and half.search.reset_prediction_after_s == 2.0
    assert loaded.compiler_options is None and loaded.origin == recognizer.origin
    assert half.dtype == "bfloat16" and half.transcribe(recordings[1]).duration_s == 2.5
    with pytest.raises(ValueError, match=whole("dtype must be one of float32, bfloat16, int8, not 'int4'")):
        nemojax.load(checkpoint_directory, dtype="int4")
    with pytest.raises(CheckpointError, match=ending(" is not a directory: there is none of this name")):
        nemojax.load(checkpoint_directory / "nothing")


def test_a_reset_after_a_pause_is_the_same_in_every_driver(recognizer, speech):
    option = {"reset_prediction_after_s": 0.08}
    want = recognizer.with_reset(0.08).transcribe(speech, 1)
    assert want.tokens != recognizer.transcribe(speech, 1).tokens
    assert recognizer.transcribe([speech, speech[:9000]], 1, batch_size=2, **option)[0] == want
    stream = recognizer.stream(1, **option)
    for begin in range(0, len(speech), 7_777):
        stream.push(speech[begin : begin + 7_777])
    assert stream.finish().tokens == want.tokens
    two_channels = np.stack([np.zeros_like(speech), speech], axis=1)
    assert recognizer.transcribe(two_channels, 1, channel=1, **option).tokens == want.tokens
    other = copy.copy(recognizer)
    other.search = object()
    with pytest.raises(ConfigError, match=whole("reset_prediction_after_s is an option of Greedy, not of object")):
        other.with_reset(1.0)


@pytest.mark.parametrize("value", [float("nan"), 2.5, "8", True])
def test_counts_must_be_whole_numbers(recognizer, value):
    with pytest.raises(ConfigError, match="batch_size must be a whole number"):
        list(inspect.unwrap(Recognizer.transcribe_each)(recognizer, [], batch_size=value))
    with pytest.raises(ConfigError, match="lookahead must be a whole number"):
        inspect.unwrap(Recognizer.lookahead)(recognizer, value)


def test_a_stream_with_a_reset_takes_the_same_input(recognizer):
    for options, rate_hz in (({"sample_rate_hz": 8000}, 8000), ({"raw": "s16le,44100"}, 44_100)):
        stream = recognizer.stream(1, reset_prediction_after_s=2.0, **options)
        assert (stream.lookahead, stream._input.rate_hz, stream._batch._search.reset_prediction_after_s) == (
            1,
            rate_hz,
            2.0,
        )
    given = {"keep_transcript": False, "end_of_utterance": EndOfUtterance(), "phrases": ["fox"]}
    stream = recognizer.stream(1, reset_prediction_after_s=2.0, **given)
    assert stream.decides_ends and stream._graphs == recognizer.requested_graphs(["fox"], None)
    assert stream._hypothesis._keep is False
