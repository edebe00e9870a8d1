import numpy as np
import pytest

from nemojax.recognition.stream_batch import StreamBatch


def test_rows_with_nothing_to_hear_are_dropped(recognizer, speech, monkeypatch):
    """Three short recordings and a long one: the long one goes on alone, as if it had always been."""
    long = np.tile(np.asarray(speech), 3)
    heard = [long[:30_000], long[:9_000], long[:20_000], long]
    alone = [recognizer.transcribe(samples, 6).tokens for samples in heard]
    sizes, step = [], StreamBatch.step
    counted = lambda batch, given: (sizes.append(len(given.active)), step(batch, given))[1]
    monkeypatch.setattr(StreamBatch, "step", counted)
    together = recognizer.transcribe(heard, 6, batch_size=4)
    assert [transcript.tokens for transcript in together] == alone and len(alone[3]) > 10
    assert sizes[0] == 4 and sizes[1:] == [1] * (len(sizes) - 1) and len(sizes) > 2


@pytest.mark.parametrize(
    "seconds, contexts",
    [([3.0], {1}), ([9.0], {2}), ([20.0], {4}), ([24.0], {4, 1}), ([30.0], {4, 2}), ([30.0, 2.0, 5.0], {1})]
    + [([24.0] * 9, {1}), ([3.0] * 9, {1}), ([20.0] * 9, {4})],
)
def test_segments_are_those_that_cost_least(recognizer, seconds, contexts, monkeypatch):
    lengths, step = set(), StreamBatch.step
    recorded = lambda batch, given: (lengths.add(given.samples.shape[1]), step(batch, given))[1]
    monkeypatch.setattr(StreamBatch, "step", recorded)
    left = recognizer.config.encoder.left_context_frames * recognizer.config.frame_samples
    scale = left / 89_600  # of the released models
    recognizer.transcribe([np.zeros(int(scale * 16_000 * s), np.float32) for s in seconds])
    assert lengths == {many * left for many in contexts}
