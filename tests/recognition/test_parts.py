"""What a recognizer consists of, and what it refuses."""

import dataclasses

import pytest

from nemojax.decoding.beam import Beam
from nemojax.decoding.greedy import Greedy
from nemojax.errors import ConfigError
from nemojax.kernels import selection
from nemojax.model.parameters import parameter_count
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import StreamBatch
from tests.helpers.messages import whole


@pytest.mark.parametrize("int8", [False, True])
def test_what_packing_adds_are_no_parameters(recognizer, tiny_model, int8):
    packed = selection.for_backend(tiny_model, int8, kernels="native", reproducible=True)
    assert parameter_count(packed) > 52_201  # the vocabulary is filled up to whole panels
    assert Recognizer(packed, recognizer.config, recognizer.tokenizer).parameters == recognizer.parameters == 52_201


def test_a_tokenizer_of_another_model_is_refused(recognizer, tiny_model, tiny_config):
    config = dataclasses.replace(tiny_config, vocabulary=63)
    with pytest.raises(ValueError, match=whole("the tokenizer has 64 pieces, the model 63")):
        Recognizer(tiny_model, config, recognizer.tokenizer)


def test_a_recognizers_search_and_compiler_options_are_those_of_its_batches(recognizer, tiny_model, monkeypatch):
    made, search, options = [], Greedy(window_frames=3), {"xla_cpu_enable_fast_math": False}
    monkeypatch.setattr(StreamBatch, "__init__", lambda batch, *given: made.append(given))
    one = Recognizer(tiny_model, recognizer.config, recognizer.tokenizer, search=search, compiler_options=options)
    for each in (one, one.with_config(one.config)):
        each.batch(3, 6)
        assert made.pop()[2:] == (6, 3, search, options, one.library.pool)


def test_a_recognizer_with_other_settings_expects_the_same_phrases(recognizer):
    expecting = recognizer.with_phrases(["quick fox"])
    shorter = dataclasses.replace(
        recognizer.config, encoder=dataclasses.replace(recognizer.config.encoder, left_context_frames=28)
    )
    others = expecting.with_config(shorter), expecting.with_search(Beam(2)), expecting.with_reset(1.0)
    assert all(other.graphs is expecting.graphs and other.library is expecting.library for other in others)


@pytest.mark.parametrize("search", [Greedy(), Beam(2)])
def test_the_words_of_every_search_have_its_measure_of_confidence(recognizer, search):
    measured = recognizer.with_search(search).with_confidence("gibbs,lin,mean")
    labels, hypothesis = recognizer.tokenizer.encode("quick"), measured.hypothesis(end_of_utterance=EndOfUtterance())
    confidences = [0.5, *[1.0] * (len(labels) - 1)]
    hypothesis.append(labels, [*range(len(labels))], [-0.5] * len(labels), confidences)
    transcript = hypothesis.transcript(8_000, 1, "stream")
    (word,), (utterance,) = transcript.words, transcript.utterances
    assert word.confidence == round(sum(confidences) / len(labels), 4) > 0.5 and utterance.words == (word,)


def test_a_search_without_confidences_takes_no_measure(recognizer, monkeypatch):
    monkeypatch.setattr(recognizer, "search", object())
    with pytest.raises(ConfigError, match=whole("confidence is an option of Greedy and Beam, not of object")):
        recognizer.with_confidence("max_prob")


def test_a_lookahead_must_fit_the_model(recognizer):
    assert recognizer.lookahead(None) == 13 and recognizer.lookahead(6) == 6
    with pytest.raises(
        ConfigError,
        match=whole(
            "lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 frames; this "
            "model was trained with (13, 6, 1, 0)"
        ),
    ):
        recognizer.lookahead(2)


def test_a_search_without_fusion_takes_no_phrases_of_a_request(recognizer, monkeypatch):
    """It is refused before any recording is opened."""

    class Plain:
        def initial_state(self, prediction, batch):
            return prediction

        def decode(self, model, encoded, length, state):
            return state

    monkeypatch.setattr(recognizer, "search", Plain())
    message = whole("Plain takes no language model and no phrases; use Greedy or Beam")
    for request in (recognizer.stream, lambda **options: next(recognizer.transcribe_each(["none.wav"], **options))):
        with pytest.raises(ConfigError, match=message):
            request(phrases=["fox"])
    assert recognizer.requested_graphs(None, None) is not None
