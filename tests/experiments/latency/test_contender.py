import numpy as np
import pytest

from experiments.latency.contender import GreedySearch, Step, in_batches, timed_steps


def test_greedy_search_is_the_double_loop_and_continues_from_chunk_to_chunk():
    rng = np.random.default_rng(0)
    logits, states = rng.standard_normal((12, 40, 5)), []

    def predict(label: int, state: int | None) -> tuple[int, int]:
        now = 0 if state is None else (state * 5 + label + 1) % 40
        states.append(now)
        return now, now

    best = lambda frame, prediction: int(logits[frame, prediction].argmax())
    search = GreedySearch(4, lambda frames: frames, predict, best)
    found = sum((search(range(begin, begin + 3)) for begin in range(0, 12, 3)), ())

    expected, state = [], 0
    for frame in range(12):
        for _ in range(10):
            label = int(logits[frame, state].argmax())
            if label == 4:
                break
            expected.append(label)
            state = (state * 5 + label + 1) % 40
    assert found == tuple(expected) and len(expected) > 5
    assert len(states) == len(expected) + 1  # the prediction network runs once per label


def test_the_parts_of_a_peers_step_make_up_the_whole():
    steps = list(timed_steps([1, 2], lambda chunk: chunk * 10, lambda encoded: (encoded,)))
    assert [step.tokens for step in steps] == [(10,), (20,)]
    assert all(step.whole_s == pytest.approx(step.encoder_s + step.decoder_s) for step in steps)


def test_batches_hold_recordings_of_like_length():
    recordings = [np.zeros(n) for n in (5, 1, 4, 2, 3)]
    assert list(in_batches(recordings, 2)) == [[1, 3], [4, 2], [0]]


def test_a_step_names_its_parts():
    assert Step._fields == ("whole_s", "encoder_s", "decoder_s", "tokens")
