import numpy as np
import pytest

from nemojax.audio.source import open_audio
from nemojax.decoding.state import Emission
from nemojax.errors import AudioError
from nemojax.recognition.offline import batch_sizes, row_count
from nemojax.recognition.stream_batch import StreamBatch


def test_rows_without_samples_are_dropped(recognizer, speech, monkeypatch):
    """Three short recordings and a long one: the long one continues alone, with its own state."""
    long = np.tile(np.asarray(speech), 3)
    recordings = [long[:30_000], np.roll(long, 5_000)[:9_000], np.roll(long, 11_000)[:20_000], np.roll(long, 17_000)]
    alone = [recognizer.transcribe(samples, 6).tokens for samples in recordings]
    sizes, step = [], StreamBatch.step
    counted = lambda batch, given: (sizes.append(len(given.active)), step(batch, given))[1]
    monkeypatch.setattr(StreamBatch, "step", counted)
    together = recognizer.transcribe(recordings, 6, batch_size=4)
    assert [transcript.tokens for transcript in together] == alone and len(alone[3]) > 10
    assert sizes[0] == 4 and sizes[1:] == [1] * (len(sizes) - 1) and len(sizes) > 2


class Source:
    """An audio source in memory, which can fail at a sample, and knows whether it was closed."""

    def __init__(self, samples, fails_at=None):
        self.audio, self.fails_at, self.read_samples, self.closed = open_audio(samples), fails_at, 0, False
        read, close = self.audio.read, self.audio.close

        def counted(count):
            self.read_samples += count
            if self.fails_at is not None and self.read_samples > self.fails_at:
                raise AudioError("it is damaged")
            return read(count)

        def closing():
            self.closed = True
            close()

        self.audio.read, self.audio.close = counted, closing


def test_a_recording_that_fails_later_gives_an_error_alone_and_harms_no_other(recognizer, speech):
    long = np.tile(np.asarray(speech), 4)
    good, bad, after = Source(long), Source(long, fails_at=120_000), Source(np.roll(long, 9_000)[:70_000])
    results = list(recognizer.transcribe_each([bad.audio, good.audio, after.audio], 6, batch_size=2))
    assert sorted(index for index, _ in results) == [0, 1, 2]
    results = dict(results)
    assert isinstance(results[0], AudioError) and bad.read_samples > 120_000
    assert results[1].tokens == recognizer.transcribe(long, 6).tokens
    assert results[2].tokens == recognizer.transcribe(np.roll(long, 9_000)[:70_000], 6).tokens


def test_sources_are_closed_when_they_are_done(recognizer, speech):
    """Each as soon as its result is there, whether it failed or not."""
    x = np.asarray(speech)
    sources = [Source(x[:20_000]), Source(x, fails_at=0), Source(x[:1]), Source(x)]
    for index, _ in recognizer.transcribe_each([source.audio for source in sources], 6, batch_size=2):
        assert sources[index].closed
    assert all(source.closed for source in sources)


@pytest.mark.parametrize(
    "seconds, contexts",
    [([3.0], {1}), ([9.0], {2}), ([20.0], {4}), ([24.0], {4, 1}), ([30.0], {4, 2}), ([30.0, 2.0, 5.0], {1})]
    + [([24.0] * 9, {1}), ([3.0] * 9, {1}), ([20.0] * 9, {4})],
)
def test_segments_are_those_that_cost_least(recognizer, seconds, contexts, monkeypatch):
    lengths = set()

    def silent(batch, given):  # the lengths do not depend on the labels
        lengths.add(given.samples.shape[1])
        rows = np.zeros((len(given.length), 1), np.int32)
        return Emission(rows, rows, rows.astype(np.float32), rows[:, 0])

    monkeypatch.setattr(StreamBatch, "step", silent)
    left = recognizer.config.encoder.left_context_frames * recognizer.config.frame_samples
    scale = left / 89_600  # of the released models
    recognizer.transcribe([np.zeros(int(scale * 16_000 * s), np.float32) for s in seconds])
    assert lengths == {many * left for many in contexts}


def test_a_row_that_ends_before_its_neighbors(recognizer, speech, monkeypatch):
    """Its place is empty while the rows after it continue; the seconds of all rows are reported."""
    x, seconds = np.tile(np.asarray(speech), 3), []
    recordings = [x[:9_000], np.roll(x, 17_000)[:95_000], np.roll(x, 30_000)[:95_000], x[:95_000]]
    alone = [recognizer.transcribe(samples, 6).tokens for samples in recordings]
    results = dict(recognizer.transcribe_each(recordings, 6, batch_size=4, progress=seconds.append))
    assert [results[index].tokens for index in range(4)] == alone and min(map(len, alone[1:])) > 5
    assert np.isclose(sum(seconds), sum(map(len, recordings)) / 16_000)


@pytest.mark.parametrize(
    ("backend", "rows"), [("cpu", [1, 2, 2, 2, 5, 5, 5, 5, 5, 10]), ("gpu", [1, 2, 5, 5, 5, 10, 10, 10, 10, 10])]
)
def test_batches_have_few_sizes(monkeypatch, backend, rows):
    """On a CPU, no row is empty at first; elsewhere, each recording has one."""
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    assert batch_sizes(10) == [10, 5, 2, 1] and batch_sizes(1) == [1]
    assert [row_count(recordings, 10) for recordings in range(1, 11)] == rows


def test_three_recordings_take_turns_in_two_rows(recognizer, speech, monkeypatch):
    recordings = [np.roll(np.asarray(speech), shift)[:20_000] for shift in (0, 5_000, 11_000)]
    alone = [recognizer.transcribe(samples, 6).tokens for samples in recordings]
    sizes, step = [], StreamBatch.step
    monkeypatch.setattr(
        StreamBatch, "step", lambda batch, given: (sizes.append(len(given.active)), step(batch, given))[1]
    )
    for backend, expected in (("cpu", {1, 2}), ("gpu", {4})):
        monkeypatch.setattr("nemojax.recognition.offline.jax.default_backend", lambda backend=backend: backend)
        assert [transcript.tokens for transcript in recognizer.transcribe(recordings, 6, batch_size=4)] == alone
        assert set(sizes) <= expected and sizes[0] == max(expected)
        sizes.clear()
