import numpy as np
import pytest

from nemojax.config import ModelConfig
from nemojax.recognition.chunker import Chunker

CONFIG = ModelConfig()


@pytest.mark.parametrize("lookahead", [0, 1, 13])
@pytest.mark.parametrize("seed", range(3))
def test_chunks_are_the_samples_in_order(lookahead, seed):
    """The first chunk is shorter by the virtual history; every piece of it may be of any size."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=100_000).astype(np.float32)
    chunker, chunks, at = Chunker(CONFIG, lookahead), [], 0
    while at < len(samples):
        size = int(rng.choice([0, 1, 200, rng.integers(1, 40_000)]))
        chunks += map(np.concatenate, chunker.push(samples[at : at + size]))
        at += size
    size = CONFIG.chunk_samples(lookahead)
    assert len(chunks[0]) == size - CONFIG.history_samples and all(len(chunk) == size for chunk in chunks[1:])
    rest = np.concatenate([samples[:0], *chunker.rest()])
    assert len(rest) < size and chunker.samples == len(samples)
    np.testing.assert_array_equal(np.concatenate([*chunks, rest]), samples)


def test_a_rest_is_given_once_and_an_empty_stream_has_an_empty_one():
    chunker = Chunker(CONFIG, 0)
    assert len(chunker.rest()) == 0 and chunker.rest() is None
    chunker = Chunker(CONFIG, 0)
    assert [sum(map(len, chunk)) for chunk in chunker.push(np.zeros(200 + 1280, np.float32))] == [200, 1280]
    assert chunker.rest() is None


def test_what_waits_holds_no_more_than_itself():
    """Not the whole of a long push, or of a packet of thousands of streams."""
    chunker = Chunker(CONFIG, 0)
    chunker.push(np.zeros((100, 1290), np.float32)[3])
    [piece] = chunker.rest()
    assert piece.base is None


def test_chunks_do_not_share_memory():
    """A chunk may wait in a queue while the next one is collected."""
    chunker = Chunker(CONFIG, 0)
    [first] = chunker.push(np.ones(200, np.float32))
    [second] = chunker.push(np.full(1280, 2.0, np.float32))
    assert (np.concatenate(first) == 1).all() and (np.concatenate(second) == 2).all()
