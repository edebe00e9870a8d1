import dataclasses

import jax
import numpy as np
import pytest

from nemojax.decoding import greedy
from nemojax.decoding.state import initial_prediction
from nemojax.errors import ConfigError
from tests.conftest import random_model
from tests.helpers.definitions import normal

LENGTHS = [20, 13, 1, 0]
greedy_jit = jax.jit(greedy.decode, static_argnames="window")
predict = jax.jit(lambda model, label, state: model.prediction.step(label, state))


@jax.jit
def label_scores(model, frame, output):
    """Log probabilities of one frame's labels, [V]."""
    return jax.nn.log_softmax(model.joint.logits(model.joint.encoder(frame), model.joint.prediction(output))[0])


def double_loop(model, encoded, length: int) -> tuple[list[int], list[int], list[float]]:
    """The definition: at each frame emit labels until blank, or until there are too many."""
    config, labels, frames, log_probs = model.config, [], [], []
    output, lstm = predict(model, np.array([config.blank]), model.prediction.initial_cache(1))
    for t in range(length):
        for _ in range(config.max_symbols_per_frame):
            scores = np.asarray(label_scores(model, np.asarray(encoded)[t][None], output))
            label = int(scores.argmax())
            if label == config.blank:
                break
            labels.append(label)
            frames.append(t)
            log_probs.append(float(scores[label]))
            output, lstm = predict(model, np.array([label]), lstm)
    return labels, frames, log_probs


def initial(model, batch):
    return jax.tree.map(lambda x: np.repeat(x, batch, axis=0), initial_prediction(model))


def rows(emission, offset=0):
    """(labels, frames, log_probs) of each row."""
    emission = jax.device_get(emission)
    return [
        (
            emission.labels[b, :n].tolist(),
            (emission.frames[b, :n] + offset).tolist(),
            emission.log_probs[b, :n].tolist(),
        )
        for b, n in enumerate(emission.length.tolist())
    ]


# a blank that is rare (frames full of labels), likely, and nearly certain
@pytest.fixture(scope="module", params=[-40.0, 4.0, 8.0])
def case(request, tiny_config):
    config = dataclasses.replace(tiny_config, max_symbols_per_frame=3)
    model = random_model(config, seed=1, blank_bias=request.param)
    encoded = 2.0 * normal(0, 4, 20, config.encoder.width)
    return model, encoded, [double_loop(model, encoded[b], n) for b, n in enumerate(LENGTHS)]


def test_the_cases_differ(case):
    """Some hypothesis holds labels; those of the rarest blank fill their frames."""
    model, _, expected = case
    labels = len(expected[0][0])
    assert labels > 0
    if model.joint.output.bias[...][model.config.blank] < -20:
        assert labels == 20 * 3 and len(expected[2][0]) == 3


@pytest.mark.parametrize("window", [1, 2, 7, 20, 31])
def test_any_window_gives_the_double_loop(case, window):
    model, encoded, expected = case
    emission, _ = greedy_jit(model, encoded, np.array(LENGTHS), initial(model, 4), window=window)
    for (labels, frames, log_probs), want in zip(rows(emission), expected, strict=True):
        assert labels == want[0] and frames == want[1]
        np.testing.assert_allclose(log_probs, want[2], atol=3e-5)  # sums in float32, in another order
    assert (np.asarray(emission.labels) == model.config.blank).sum() == emission.labels.size - emission.length.sum()


@pytest.mark.parametrize("size", [1, 4, 10])
def test_chunks_give_the_whole(case, size):
    model, encoded, expected = case
    state, found = initial(model, 4), [([], []) for _ in LENGTHS]
    for first in range(0, 20, size):
        length = np.clip(np.array(LENGTHS) - first, 0, size)
        emission, state = greedy_jit(model, encoded[:, first : first + size], length, state, window=size)
        for (labels, frames), new in zip(found, rows(emission, first), strict=True):
            labels += new[0]
            frames += new[1]
    assert found == [(want[0], want[1]) for want in expected]


def test_frames_past_the_length_and_neighbors_are_inert(case):
    model, encoded, expected = case
    poisoned = np.where((np.arange(20) < np.array(LENGTHS)[:, None])[..., None], encoded, np.float32(np.nan))
    poisoned[0] = np.nan
    emission, _ = greedy_jit(model, poisoned, np.array(LENGTHS), initial(model, 4), window=7)
    assert [row[:2] for row in rows(emission)[1:]] == [want[:2] for want in expected[1:]]


def test_a_row_without_frames_keeps_its_state(case):
    model, encoded, _ = case
    before = initial(model, 4)
    _, after = greedy_jit(model, encoded, np.array(LENGTHS), before, window=7)
    same = jax.tree.map(lambda a, b: bool((a[3] == b[3]).all()), before, after)
    assert all(jax.tree.leaves(same))


def with_reset(model, pause_frames):
    """A greedy search that resets the prediction network after this number of frames without a label."""
    return greedy.Greedy(7, pause_frames * model.config.frame_ms / 1000)


def double_loop_with_reset(model, encoded, length: int, pause_frames: int) -> tuple[list[int], list[int]]:
    """The definition: before a frame that follows `pause_frames` frames without a label, the network begins anew."""
    config, labels, frames, blanks = model.config, [], [], 0
    initial = predict(model, np.array([config.blank]), model.prediction.initial_cache(1))
    output, lstm = initial
    for t in range(length):
        if blanks == pause_frames:
            output, lstm = initial
        before = len(labels)
        while len(labels) < before + config.max_symbols_per_frame:
            label = int(np.asarray(label_scores(model, np.asarray(encoded)[t][None], output)).argmax())
            if label == config.blank:
                break
            labels.append(label)
            frames.append(t)
            output, lstm = predict(model, np.array([label]), lstm)
        blanks = 0 if len(labels) > before else blanks + 1
    return labels, frames


@pytest.fixture(scope="module")
def pausing(tiny_config):
    """A model with pauses, of which resets change labels."""
    model = random_model(dataclasses.replace(tiny_config, max_symbols_per_frame=2), seed=1, blank_bias=14.0)
    encoded = 2.0 * normal(0, 2, 30, tiny_config.encoder.width)
    return model, encoded, [double_loop(model, encoded[b], 30)[:2] for b in range(2)]


@pytest.mark.parametrize("pause_frames", [1, 2, 4])
def test_a_reset_after_a_pause_is_the_definition_in_any_segments(pausing, pause_frames):
    model, encoded, without = pausing
    expected = [double_loop_with_reset(model, encoded[b], 30, pause_frames) for b in range(2)]
    assert expected != without
    search = with_reset(model, pause_frames)
    decode = jax.jit(search.decode)
    for size in (30, 7, 1):
        state, found = search.initial_state(initial_prediction(model), 2), [([], []), ([], [])]
        for first in range(0, 30, size):
            piece = np.pad(encoded[:, first : first + size], ((0, 0), (0, max(0, first + size - 30)), (0, 0)))
            length = np.array([min(size, 30 - first)] * 2, np.int32)
            emission, state = decode(model, piece, length, state)
            for (labels, frames), new in zip(found, rows(emission, first), strict=True):
                labels += new[0]
                frames += new[1]
        assert found == expected


def test_a_pause_that_never_comes_changes_nothing(pausing):
    model, encoded, without = pausing
    search = with_reset(model, 30)
    state = search.initial_state(initial_prediction(model), 2)
    emission, _ = jax.jit(search.decode)(model, encoded, np.array([30, 30], np.int32), state)
    assert [row[:2] for row in rows(emission)] == without


@pytest.mark.parametrize(("seconds", "frames"), [(0.01, 1), (0.08, 1), (0.081, 2), (0.56, 7), (2.0, 25)])
def test_a_pause_is_counted_in_whole_frames(tiny_config, seconds, frames):
    assert greedy.Greedy(reset_prediction_after_s=seconds).pause_frames(tiny_config) == frames
    assert greedy.Greedy().pause_frames(tiny_config) == 0


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pause_that_is_no_number_of_seconds_is_refused(seconds):
    with pytest.raises(ConfigError, match="reset_prediction_after_s must be more than 0"):
        greedy.Greedy(reset_prediction_after_s=seconds)
