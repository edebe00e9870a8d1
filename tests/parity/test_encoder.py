"""Log-mel and encoder, at every seam: whole recordings, and chunk by chunk with caches."""

import numpy as np
import pytest

from tests.parity.seams import LOG_MEL_MEAN

pytestmark = pytest.mark.parity

LOOKAHEADS = [0, 1, 6, 13]


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_whole_recordings(pair, seams, lookahead):
    """Every frame of every recording, the last ones included, whether in big segments or chunk by chunk."""
    for mode, runs in ("offline", pair.nemojax_offline(lookahead)), ("stream", pair.nemojax_stream(lookahead)):
        for name, run in runs.items():
            where = f"{pair.name}, R={lookahead}, {mode}, {name}"
            seams.compare_traces("NeMo", run.trace, pair.nemo_offline(lookahead)[name], where)
            seams.compare_traces("transformers", run.trace, pair.transformers_offline(lookahead)[name], where)


def test_log_mel_of_speech(pair):
    """The mean over all bins says more than the worst of them, which is a bin of silence."""
    offline = pair.nemo_offline(0)
    for name in [*pair.speech, "2.5 s of glides"]:
        ours, theirs = pair.nemojax_offline(0)[name].trace["log_mel"], offline[name]["log_mel"]
        assert np.abs(ours - theirs).mean() < LOG_MEL_MEAN, name


def test_a_lookahead_that_was_not_trained(pair, seams):
    """Any look-ahead whose chunks fill the left context: four chunks of it here."""
    lookahead = pair.nemojax.config.encoder.left_context_frames // 2 - 1
    name, samples = next(iter(pair.speech.items()))
    [run] = pair.nemojax.run([samples], lookahead, 1)
    where = f"{pair.name}, R={lookahead}, {name}"
    seams.compare_traces("transformers", run.trace, pair.transformers.offline(samples, lookahead), where)


def test_batch_of_a_reference(pair, seams):
    """transformers pads a batch; nemojax's rows are what it makes of each recording there, too."""
    recordings = pair.recordings(1)
    for (name, encoded), run in zip(
        zip(recordings, pair.transformers.batch([*recordings.values()], 1), strict=True),
        pair.nemojax_stream(1).values(),
        strict=True,
    ):
        seams.compare("transformers batch", "encoder", run.trace["encoder"], encoded, f"{pair.name}, R=1, {name}")


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_chunk_by_chunk_with_caches(pair, seams, lookahead):
    """Every whole chunk of every recording, and what is cached after it."""
    streams = {"transformers stream": pair.transformers_stream(lookahead)}
    if lookahead:
        streams["NeMo stream"] = pair.nemo_stream(lookahead)
    for name, run in pair.nemojax_stream(lookahead).items():
        for reference, chunks in streams.items():
            begin = 0
            for i, chunk in enumerate(chunks[name]):
                where, end = f"{pair.name}, R={lookahead}, chunk {i} of {name}", begin + lookahead + 1
                ours = {seam: values[begin:end] for seam, values in run.trace.items()}
                seams.compare_traces(reference, ours, chunk.trace, where)
                seams.compare_caches(reference, run.caches[i], chunk.caches, where)
                begin = end
