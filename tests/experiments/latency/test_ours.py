import math

import librosa
import numpy as np

from experiments.latency.ours import Nemojax, log_mel_of
from experiments.latency.weights import read_speech


def test_our_steps_have_the_labels_of_a_stream(work):
    contender = Nemojax(work, "float32")
    [samples] = read_speech((), [3.0], seed=0)
    for lookahead in (1, 0):
        steps = list(contender.stream(samples, lookahead))
        assert len(steps) == (len(samples) + 1080) // (1280 * (lookahead + 1))
        assert all(min(step[:3]) > 0 for step in steps)
        stream = contender._recognizer.stream(lookahead)
        pushed = stream.push(samples)
        assert sum((step.tokens for step in steps), ()) == pushed.tokens
        untimed = list(contender.stream(samples, lookahead, parts=False))
        assert [step.tokens for step in untimed] == [step.tokens for step in steps]
        assert all(math.isnan(step.encoder_s) for step in untimed)


def test_log_mel_for_peers_is_librosas():
    [samples] = read_speech((), [0.5], seed=0)
    found = log_mel_of(samples, 80)
    emphasized = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    window = np.hanning(400)
    spectrum = librosa.stft(emphasized, n_fft=512, hop_length=160, win_length=400, window=window, pad_mode="constant")
    filters = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=80)
    expected = np.log(filters @ np.abs(spectrum) ** 2 + 2.0**-24).T
    assert len(found) == 50
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-3)
