import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from nemojax.audio.manifest import expand_manifest
from nemojax.config import PRESETS, ModelConfig
from nemojax.data.corpus import (
    Filters,
    Source,
    check_share,
    duration_problems,
    frames_of,
    header_duration_s,
    load_corpus,
    text_problems,
)
from nemojax.data.loading import Loader
from nemojax.data.plan import Plan
from nemojax.data.waveform import RECIPE
from nemojax.errors import ConfigError, DataError
from nemojax.text.tokenizer import Tokenizer
from tests.audio.test_manifest import tarred
from tests.data.corpora import write_manifest, write_speech
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wave, without_frame_count

CONFIG = ModelConfig()


@given(samples=st.integers(0, 10**6))
def test_frames_hold_all_samples(samples):
    frames = frames_of(samples, CONFIG)
    assert frames * 1280 >= samples + 1080 > (frames - 1) * 1280
    # an incomplete last hop takes room, but makes no frame
    assert frames - CONFIG.encoder_frames(samples) in ((0, 1) if samples >= 160 else (1,))


def test_utterances_of_several_manifests(tmp_path, pieces):
    tokenizer = Tokenizer(pieces)
    first = write_speech(tmp_path, "first", ["one or two", "a fine day"])
    sounds = {f"{i}.flac": encoded(wave(20_000 + i), 16_000, "flac") for i in range(2)}
    tarred(tmp_path / "second.tar", sounds)
    second = write_manifest(
        tmp_path / "second.jsonl",
        [{"audio_filepath": name, "text": f"she said {'ab'[i]}"} for i, name in enumerate(sounds)],
    )
    corpus = load_corpus([Source(first, 2.0), Source(second, 0.5)], tokenizer, CONFIG)
    texts = ["one or two", "a fine day", "she said a", "she said b"]
    assert [recording.text for recording in corpus.recordings] == texts and len(corpus) == 4
    assert corpus.samples.tolist() == [16_000, 16_000, 20_000, 20_001]  # the last two from their headers
    assert corpus.sources.tolist() == [0, 0, 1, 1] and corpus.weights.tolist() == [2.0, 2.0, 0.5, 0.5]
    assert [corpus.labels_of(i).tolist() for i in range(4)] == [tokenizer.encode(text) for text in texts]
    assert corpus.label_counts.tolist() == [len(tokenizer.encode(text)) for text in texts] and not corpus.dropped
    assert corpus.hours == pytest.approx(72_001 / 16_000 / 3600)


def test_entries_left_out_are_counted_by_kind(tmp_path, pieces):
    entries = [
        {"audio_filepath": "a.wav", "duration": 2.0, "text": "a fine day"},
        {"audio_filepath": "b.wav", "duration": 21.0, "text": "a fine day"},
        {"audio_filepath": "c.wav", "duration": 22.0, "text": "é"},
        {"audio_filepath": "d.wav", "duration": 0.05, "text": "a"},
        {"audio_filepath": "e.wav", "duration": 2.0, "text": " "},
        {"audio_filepath": "f.wav", "duration": 2.0},
        {"audio_filepath": "g.wav", "duration": 2.0, "text": "fine é"},
        {"audio_filepath": "h.wav", "duration": 0.2, "text": "one or two or one or two"},
        {"audio_filepath": "i.wav", "duration": 2.0, "text": "a dog [noise]"},
        {"audio_filepath": "missing.wav", "text": "a dog"},
        {"audio_filepath": ""},
    ]
    manifest, tokenizer = write_manifest(tmp_path / "m.jsonl", entries), Tokenizer(pieces)
    corpus = load_corpus([Source(manifest)], tokenizer, CONFIG, Filters(exclude=r"\[|\]", keep_out_of_vocabulary=False))
    assert [recording.name for recording in corpus.recordings] == ["a.wav"]
    kinds = [(dropped.name, dropped.problem.kind) for dropped in corpus.dropped]
    assert kinds[:6] == [
        ("b.wav", "too long"),
        ("c.wav", "too long"),
        ("d.wav", "too short"),
        ("e.wav", "no text"),
        ("f.wav", "no text"),
        ("g.wav", "out of vocabulary"),
    ]
    assert kinds[6:] == [
        ("h.wav", "too many labels"),
        ("i.wav", "out of vocabulary"),  # and excluded: the first reason counts
        ("missing.wav", "unreadable"),
        (str(manifest), "unreadable"),
    ]
    labels = len(tokenizer.encode("one or two or one or two"))
    assert corpus.report().splitlines() == [
        "1 utterances, 0.00 h",
        "2 left out, 0.01 h: too long (the first: b.wav: it lasts 21.00 s, more than 20 s)",
        "2 left out, 0.00 h: no text (the first: e.wav: its text is empty)",
        "2 left out, 0.00 h: out of vocabulary (the first: g.wav: the tokenizer has no piece for 'é')",
        "2 left out, 0.00 h: unreadable (the first: missing.wav: there is no such file)",
        "1 left out, 0.00 h: too short (the first: d.wav: it lasts 0.05 s, less than 0.1 s)",
        "1 left out, 0.00 h: too many labels (the first: h.wav: its text has "
        f"{labels} labels for {frames_of(3200, CONFIG)} frames (0.20 s))",
    ]
    assert [d.seconds for d in corpus.dropped] == [21.0, 22.0, 0.05, 2.0, 2.0, 2.0, 0.2, 2.0, 0.0, 0.0]
    kept = load_corpus(
        [Source(manifest)], tokenizer, CONFIG, Filters(exclude=r"\[", keep_out_of_vocabulary=True, max_s=30.0)
    )
    assert [recording.name for recording in kept.recordings] == ["a.wav", "b.wav", "c.wav", "g.wav"]
    assert [dropped.problem.kind for dropped in kept.dropped].count("excluded") == 1
    with pytest.raises(ConfigError, match=r"leave nothing to train on: 0 utterances(.|\n)*too short"):
        load_corpus([Source(manifest)], tokenizer, CONFIG, Filters(min_s=25.0, max_s=30.0))


def test_defaults(tmp_path):
    filters = Filters()
    assert (filters.min_s, filters.max_s, filters.max_labels_per_frame) == (0.1, 20.0, 2.0)
    assert (filters.keep_out_of_vocabulary, filters.exclude, Source(tmp_path).weight) == (False, "", 1.0)


def test_limits_of_texts_and_durations(pieces):
    tokenizer, text = Tokenizer(pieces), "one or two"
    labels, frames = len(tokenizer.encode(text)), frames_of(16_000, CONFIG)
    kinds = lambda *arguments, **options: [
        problem.kind for problem in text_problems(*arguments, Filters(**options), CONFIG)
    ]
    assert kinds(text, 1.0, tokenizer, max_labels_per_frame=labels / frames) == []
    assert kinds(text, 1.0, tokenizer, max_labels_per_frame=labels / frames * 0.999) == ["too many labels"]
    assert kinds(text, None, tokenizer, max_labels_per_frame=0) == kinds(text, 1.0, None, max_labels_per_frame=0) == []
    assert kinds("é", None, tokenizer) == ["out of vocabulary"] and kinds("é", None, None) == []
    assert kinds("a é", 0.0, tokenizer, exclude="é", max_labels_per_frame=0) == [
        *("out of vocabulary", "too many labels", "excluded")
    ]
    (excluded,) = text_problems("one [two]", None, None, Filters(exclude=r"\["), CONFIG)
    assert excluded.message == r"its text matches '\\['"
    for seconds, kind in ((0.5, None), (2.0, None), (0.4999, "too short"), (2.0001, "too long")):
        found = duration_problems(seconds, Filters(min_s=0.5, max_s=2.0))
        assert [problem.kind for problem in found] == ([] if kind is None else [kind])


def test_the_share_of_utterances_that_can_not_be_read():
    faults = [f"{letter}: gone" for letter in "abcdef"]
    check_share(faults, 3, 6)
    for count, named in ((5, "a: gone; b: gone; c: gone; d: gone; e: gone"), (6, f"{'; '.join(faults[:5])}; ...")):
        with pytest.raises(DataError) as caught:
            check_share(faults[:count], count, 2 * count - 1)
        assert str(caught.value) == (
            f"{count} of {2 * count - 1} utterances can't be read ({named}); "
            "python -m nemojax.data.validate lists everything wrong with manifests"
        )


def test_entries_are_counted_while_they_are_read(tmp_path, pieces):
    entry, seen = {"audio_filepath": "a.wav", "duration": 1.0, "text": "a fine day"}, []
    manifest = write_manifest(tmp_path / "m.jsonl", [entry, entry])
    progress = lambda entries: [seen.append(index) or (index, entry) for index, entry in entries]
    load_corpus([Source(manifest), Source(manifest)], Tokenizer(pieces), CONFIG, progress=progress)
    assert seen == [0, 0, 1, 1]


def test_durations_without_a_header(tmp_path):
    (tmp_path / "a.mp3").write_bytes(without_frame_count(encoded(wave(32_000), 16_000, "mp3")))
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": "a.mp3"}))
    (entry,) = expand_manifest(tmp_path / "m.jsonl")
    assert header_duration_s(entry) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: Source(Path("m.jsonl"), 0.0), "weight must be from 0.001 to 1000, not 0"),
        (lambda: Source(Path("m.jsonl"), float("nan")), "weight must be"),
        (lambda: Source(Path("m.jsonl"), 1000.1), "m.jsonl: its weight must be from 0.001 to 1000, not 1000.1"),
        (lambda: Filters(min_s=2.0, max_s=2.0), "filters: min_s 2.0 must be at least 0 and less than max_s 2.0"),
        (lambda: Filters(min_s=-0.1), "min_s -0.1 must be"),
        (lambda: Filters(exclude="["), "is not a regular expression"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_weights_at_their_limits():
    assert Source(Path("m"), 0.001).weight + Source(Path("m"), 1000.0).weight == 1000.001 and Filters(min_s=0.0)


def test_presets_have_the_same_frames():
    assert len({int(frames_of(np.int64(12_345), config)) for config in PRESETS.values()}) == 1


def test_joining_needs_labels_that_can_be_joined(tmp_path):
    manifest = write_speech(tmp_path, "speech", ["one or two", "a fine day", "she said"])
    for options, joinable in (({}, True), ({"add_dummy_prefix": False}, False)):
        model = io.BytesIO()
        texts = iter(["one or two", "a fine day", "she said so"])
        SentencePieceTrainer.train(
            sentence_iterator=texts, model_writer=model, vocab_size=30, minloglevel=2, hard_vocab_limit=False, **options
        )
        corpus = load_corpus([Source(manifest)], Tokenizer(model.getvalue()), CONFIG)
        assert corpus.joinable == joinable
    Plan(corpus, CONFIG)
    with pytest.raises(
        ConfigError,
        match=whole(
            "utterances can't be joined: this tokenizer encodes a word within a text differently than "
            "at the start of a text; set join_probability to 0"
        ),
    ):
        Plan(corpus, CONFIG, waveform=RECIPE)


def test_manifests_of_which_most_lines_can_not_be_read(tmp_path, pieces):
    tokenizer, good = Tokenizer(pieces), {"audio_filepath": "a.wav", "duration": 2.0, "text": "a fine day"}
    half = write_manifest(tmp_path / "half.jsonl", [good, {"audio_filepath": 1}])
    assert len(load_corpus([Source(half)], tokenizer, CONFIG)) == 1
    bad = [{"audio_filepath": "d.wav", "shard_id": 3, "duration": 2.0, "text": "a"}, {"audio_filepath": "gone.wav"}]
    most = write_manifest(tmp_path / "most.jsonl", [good, *bad])
    with pytest.raises(DataError) as raised:
        load_corpus([Source(most)], tokenizer, CONFIG)
    message = str(raised.value)
    assert message.startswith("2 of 3 utterances can't be read (") and "gone.wav: there is no such file" in message
    assert "line 2: d.wav is not beside the manifest, and there is no audio_3.tar" in message


def test_utterances_of_a_tarred_dataset(tmp_path, pieces):
    """Parts of one member are utterances of their own; marked lines are left out."""
    tarred(tmp_path / "audio_0.tar", {"d_a.wav": encoded(wave(48_000), 16_000)})
    lines = [
        {"audio_filepath": "d_a.wav", "offset": 0.0, "duration": 1.0, "text": "a fine day", "shard_id": 0},
        {"audio_filepath": "d_a-sub1.wav", "offset": 1.0, "duration": 2.0, "text": "one or two", "shard_id": 0},
        {"audio_filepath": "d_a-sub2.wav", "offset": 1.0, "duration": 1.0, "text": "a", "shard_id": 0, "_skipme": True},
    ]
    manifest = write_manifest(tmp_path / "tarred_audio_manifest.json", lines)
    corpus = load_corpus([Source(manifest)], Tokenizer(pieces), CONFIG)
    assert corpus.samples.tolist() == [16_000, 32_000] and not corpus.dropped
    loader = Loader(Plan(corpus, CONFIG))
    assert [len(loader.decode(utterance)) for utterance in range(2)] == [16_000, 32_000]
