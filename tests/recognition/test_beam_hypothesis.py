import asyncio

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.config import ModelConfig
from nemojax.decoding.beam import Beam
from nemojax.decoding.greedy import Greedy
from nemojax.errors import ConfigError
from nemojax.recognition.beam_hypothesis import BeamHypothesis
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.hypothesis import NOTHING, merged
from nemojax.recognition.recognizer import load
from nemojax.serving.engine import Engine
from nemojax.streaming import init_state, segments_of, transcribe_scan
from nemojax.text.tokenizer import Tokenizer
from tests.helpers.messages import whole
from tests.recognition.test_label_tree import emission

CONFIG = ModelConfig()


@pytest.fixture
def tokenizer(pieces):
    return Tokenizer(pieces)


def gained(labels, frame=0):
    return [(label, frame + i, -0.5) for i, label in enumerate(labels)]


def test_an_update_has_what_is_settled_and_what_may_change(tokenizer):
    the, dog, fox = (tokenizer.encode(text) for text in ("the", "dog", "fox"))
    hypothesis = BeamHypothesis(CONFIG, tokenizer, score_norm=True, n_best=2)
    first = hypothesis.extend(emission((0, gained(the + dog), -1.0), (0, gained(the + fox), -1.5)), 0)
    assert (first.text, first.tentative) == ("the", " dog") and first.tokens == tuple(the)
    assert hypothesis.text == "the"
    second = hypothesis.extend(emission((1, [], -1.0), (0, [], -1.5)), 0)  # the other one is the best now
    assert (second.text, second.tentative, second.tokens) == ("", " fox", ())
    third = hypothesis.extend(emission((0, [], -1.0), (1, [], -9.0)), 0)
    assert merged([first, second, third]).tentative == " fox"

    transcript = hypothesis.transcript(16_000, 6, "stream")
    assert transcript.text == "the fox" and transcript.tokens == (*the, *fox)
    assert [one.text for one in transcript.n_best] == ["the fox", "the dog"]
    assert [one.score for one in transcript.n_best] == [-1.0, -9.0]
    assert transcript.n_best[1].tokens == (*the, *dog) and set(transcript.n_best[1].log_probs) == {-0.5}
    assert transcript.n_best[1].frames == tuple(range(len(the + dog)))
    assert transcript.to_dict("a.wav")["n_best"][1]["text"] == "the dog"
    assert [word.text for word in transcript.words] == ["the", "fox"]
    assert hypothesis.finish() is NOTHING


@pytest.mark.parametrize("n_best", [0, 2])
def test_the_end_adds_the_rest_of_the_best_hypothesis(tokenizer, n_best):
    """A stream that forgets lists no others: they would lack what is settled."""
    dog, fox = tokenizer.encode("dog"), tokenizer.encode("fox")
    hypothesis = BeamHypothesis(CONFIG, tokenizer, score_norm=True, n_best=n_best, keep=False)
    update = hypothesis.extend(emission((0, gained(dog), -1.0), (0, gained(fox), -1.5)), 0)
    assert (update.text, update.tentative, hypothesis.text) == ("", "dog", "")
    last = hypothesis.finish()
    assert (last.text, last.tentative, last.tokens) == ("dog", "", tuple(dog))
    transcript = hypothesis.transcript(16_000, 6, "stream")
    assert transcript.n_best == () and "n_best" not in transcript.to_dict("a.wav")


def test_a_stream_without_text_has_none(tokenizer):
    hypothesis = BeamHypothesis(CONFIG, tokenizer, score_norm=True, n_best=3)
    assert hypothesis.extend(emission((0, [], -0.5), (1, [], -np.inf)), 0) is NOTHING
    transcript = hypothesis.transcript(16_000, 6, "stream")
    assert transcript.text == "" and [one.text for one in transcript.n_best] == [""]


def test_tentative_text_that_is_gone_is_news(tokenizer):
    fox = tokenizer.encode("fox")
    hypothesis = BeamHypothesis(CONFIG, tokenizer, score_norm=False, n_best=0)
    first = hypothesis.extend(emission((0, gained(fox), -0.5), (0, [], -0.7)), 0)
    gone = hypothesis.extend(emission((1, [], -0.1), (0, [], -0.9)), 0)
    assert first.tentative == "fox" and gone is not NOTHING and merged([first, gone]).tentative == ""
    assert hypothesis.extend(emission((0, [], -0.1), (1, [], -0.9)), 0) is NOTHING


def test_in_a_pause_the_end_of_the_best_hypothesis_is_early(tokenizer):
    dog, fox = tokenizer.encode("dog"), tokenizer.encode("fox")
    settings = EndOfUtterance(silence_ms=240)
    hypothesis = BeamHypothesis(CONFIG, tokenizer, score_norm=False, n_best=0, end_of_utterance=settings)
    updates = [hypothesis.extend(emission((0, gained(dog), -1.0), (0, gained(fox), -1.5)), 0, 4)]
    stay = emission((0, [], -1.0), (1, [], -1.5))
    updates += [hypothesis.extend(stay, 0, frames) for frames in (9, 20, 40)]
    (early,) = [one for update in updates for one in update.early]
    assert (early.text, early.reason) == ("dog", "silence") and not any(update.final for update in updates)
    assert {update.tentative for update in updates} == {"dog"}
    again = hypothesis.extend(emission((0, gained(fox, 50), -1.0), (1, gained(fox, 50), -1.5)), 0, 60)
    assert [one.text for one in again.early] == ["fox"]
    settled = hypothesis.extend(emission((0, [], -1.0), (1, [], -np.inf)), 0, 61)
    assert settled.final == (early, *again.early) and not settled.early


@pytest.fixture(scope="module")
def searching(recognizer):
    return recognizer.with_search(Beam(4, n_best=2))


def labels(transcript):
    return transcript.tokens, transcript.frames, transcript.text, [one.tokens for one in transcript.n_best]


def test_every_way_to_transcribe_gives_the_same(searching, speech):
    """Offline, in a batch, as a stream with its updates, in the engine, and with the pure functions."""
    samples = np.asarray(speech)[:60_000]
    offline, short = searching.transcribe([samples, samples[:9_000]], 6)
    assert len(offline.tokens) > 3 and len(offline.n_best) == 2 and offline.n_best[0].tokens == offline.tokens
    assert labels(searching.transcribe(samples[:9_000], 6)) == labels(short)

    stream, updates = searching.stream(6), []
    for begin in range(0, len(samples), 7_000):
        updates.append(stream.push(samples[begin : begin + 7_000]))
    transcript = stream.finish()
    assert labels(transcript) == labels(offline)
    settled = merged(updates)
    assert transcript.tokens[: len(settled.tokens)] == settled.tokens and transcript.text.startswith(settled.text)
    assert any(update.tentative for update in updates)

    async def serve():
        async with Engine(searching, 6, slots=(1,)) as engine:
            live, found = engine.open(), []

            async def collect():
                async for update in live:
                    found.append(update)

            collecting = asyncio.create_task(collect())
            await live.push(samples)
            transcript = await live.finish()
            await collecting
            return transcript, merged(found)

    transcript, update = asyncio.run(serve())
    assert labels(transcript) == labels(offline)
    assert (update.text, update.tokens, update.tentative) == (offline.text, offline.tokens, "")

    model, constants, config = searching.model, searching.constants, searching.config
    segments = segments_of(jnp.asarray(samples[None]), jnp.array([len(samples)]), 6, 5, config)
    state = init_state(model, constants, 1, searching.search)
    emissions = jax.device_get(transcribe_scan(model, constants, state, segments, 6, searching.search)[1])
    hypothesis = searching.hypothesis()
    for index in range(len(emissions.total)):
        hypothesis.extend(jax.tree.map(lambda x, index=index: x[index], emissions), 0)
    assert labels(hypothesis.transcript(len(samples), 6, "offline")) == labels(offline)


def test_the_search_is_chosen(recognizer, checkpoint_directory):
    assert recognizer.with_search(Beam(2)).search == Beam(2) and recognizer.search == Greedy()
    assert load(checkpoint_directory, search=Beam(2)).search == Beam(2)
    reset = whole("reset_prediction_after_s is an option of Greedy, not of Beam")
    with pytest.raises(ConfigError, match=reset):
        recognizer.with_search(Beam(2)).stream(reset_prediction_after_s=1.0)
    both = (
        "give either search or reset_prediction_after_s; a greedy search has the seconds as its own setting: "
        "search=Greedy(reset_prediction_after_s=...)"
    )
    with pytest.raises(ConfigError, match=whole(both)):
        load(checkpoint_directory, search=Beam(2), reset_prediction_after_s=1.0)
    for value in (4, Beam):
        message = f"search must be a search, such as Greedy() or Beam(width=4), not {value!r}"
        with pytest.raises(ConfigError, match=whole(message)):
            recognizer.with_search(value)
