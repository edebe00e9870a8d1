from pathlib import Path

import numpy as np
import pytest

from nemojax.data import waveform
from nemojax.data.waveform import RECIPE, UNCHANGED, WaveformConfig
from nemojax.errors import ConfigError
from tests.helpers.sounds import wave


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def pitch_hz(samples) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))))) * 16_000 / len(samples)


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.1, 1.7])
def test_speed_changes_length_and_pitch(speed):
    changed = waveform.at_speed(tone(440), speed)
    assert changed.dtype == np.float32 and len(changed) == -(-160_000 // round(10 * speed))
    assert abs(pitch_hz(changed) - 440 * speed) < 2 and abs(changed[2000:-2000]).max() == pytest.approx(0.5, rel=0.02)
    for length in (0, 1, 2, 999, 1000, 1001):
        assert len(waveform.at_speed(wave(length), speed)) == waveform.samples_at_speed(np.int64(length), speed)
    same = wave(100)
    assert waveform.at_speed(same, 1.0) is same


def test_joining_and_silence():
    one, two = np.ones(2, np.float32), np.full(1, 2, np.float32)
    np.testing.assert_array_equal(waveform.joined([one, two, one], 2), [1, 1, 0, 0, 2, 0, 0, 1, 1])
    np.testing.assert_array_equal(waveform.joined([two], 5), [2])
    np.testing.assert_array_equal(waveform.with_silence(one, 1, 2), [0, 1, 1, 0, 0])
    assert waveform.with_silence(one, 1, 2).dtype == waveform.joined([one, two], 2).dtype == np.float32


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_noise_has_the_signal_to_noise_ratio(snr_db):
    speech = waveform.with_silence(tone(300), 8000, 24_000)
    noise = 7 * wave(5000, seed=3)
    added = waveform.with_noise(speech, noise, snr_db) - speech
    ratio = np.mean(tone(300) ** 2) / np.mean(added.astype(np.float64) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.1)  # silence around it does not count
    np.testing.assert_allclose(added[5000:10_000], added[:5000], atol=1e-5)  # repeated
    assert added.dtype == np.float32


def test_noise_for_silence_and_silence_for_noise():
    speech = tone(300)
    np.testing.assert_array_equal(waveform.with_noise(speech, np.zeros(5, np.float32), 0.0), speech)
    np.testing.assert_array_equal(waveform.with_noise(speech, np.zeros(0, np.float32), 0.0), speech)
    silence = np.zeros(100, np.float32)
    np.testing.assert_array_equal(waveform.with_noise(silence, wave(100), 0.0), silence)
    assert len(waveform.with_noise(silence[:0], wave(100), 0.0)) == 0


@pytest.mark.parametrize("color", [0.0, 1.0, 2.0])
def test_the_color_of_noise_is_its_slope(color):
    noise = waveform.colored_noise(2**17, color, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise * np.hanning(len(noise)))) ** 2
    low, high = (power[band : 2 * band].mean() for band in (400, 25_600))
    assert 10 * np.log10(low / high) == pytest.approx(color * 10 * np.log10(64), abs=1)
    assert noise.dtype == np.float32 and abs(noise.mean(dtype=np.float64)) < 1e-6 * noise.std()
    assert [len(waveform.colored_noise(n, color, np.random.default_rng(0))) for n in (0, 1, 2, 1000)] == [
        0,
        1,
        2,
        1000,
    ]


def test_rates_other_than_16_khz():
    """Of hum, of a telephone line and of speed; and the rate that `augmented` passes on."""
    tone_at = lambda hz, rate_hz: (0.5 * np.sin(2 * np.pi * hz * np.arange(rate_hz) / rate_hz)).astype(np.float32)
    at_peak = lambda samples: int(np.argmax(np.abs(np.fft.rfft(samples))))  # in Hz, of one second
    hum = waveform.hum(8000, np.random.default_rng(5), 8000)
    assert at_peak(hum) % 50 == 0 or at_peak(hum) % 60 == 0
    same = lambda config: waveform.augmented(tone_at(300, 8000), np.random.default_rng(5), config, sample_rate_hz=8000)
    config = WaveformConfig(noise_probability=1.0, noise_kinds=("hum",), noise_snr_db=(-40.0, -40.0))
    assert at_peak(same(config)) % 50 == 0 or at_peak(same(config)) % 60 == 0
    line = waveform.telephone(tone_at(1000, 24_000), 24_000)
    assert len(line) == 24_000 and at_peak(line) == 1000
    line = same(WaveformConfig(telephone_probability=1.0))
    np.testing.assert_array_equal(line, waveform.telephone(tone_at(300, 8000), 8000))
    faster = waveform.at_speed(tone_at(1000, 8000), 1.25, 8000)
    assert len(faster) == 6400 and at_peak(faster) == 1000  # 1250 Hz, in steps of 1.25 Hz


def test_the_levels_of_a_telephone_line_are_those_of_the_mu_law():
    """At the rate of the line, a constant in its band comes out at one of 255 levels."""
    line = waveform.telephone(tone(1000), 8000)
    levels = np.unique(np.round(127 * np.log1p(255 * np.abs(line)) / np.log1p(255), 3))
    np.testing.assert_allclose(levels, np.round(levels), atol=0.02)
    assert 20 < len(levels) <= 128 and np.abs(line).max() <= 1
    loud = waveform.telephone(4 * tone(1000), 8000)
    assert np.abs(loud).max() == pytest.approx(1)


def test_hum_is_harmonics_of_the_mains():
    bases = {float(np.random.default_rng(seed).choice(waveform.MAINS_HZ)) for seed in range(4)}
    assert bases == {50.0, 60.0}
    quadrants = set()
    for seed in range(4):
        noise = waveform.hum(32_000, np.random.default_rng(seed))
        spectrum = np.fft.rfft(noise)  # in steps of 0.5 Hz
        power = np.abs(spectrum) ** 2
        base = max(range(2), key=lambda i: power[[100, 120][i] :: [100, 120][i]][:10].sum())
        harmonics = power[[100, 120][base] :: [100, 120][base]][:10]
        assert harmonics.sum() > 0.99 * power.sum() and noise.dtype == np.float32
        amplitudes = np.sqrt(harmonics) / 16_000
        assert (amplitudes < 1.001 / np.arange(1, 11)).all() and (amplitudes > 1e-4).all()
        phases = np.angle(spectrum[[100, 120][base] :: [100, 120][base]][:10])
        quadrants |= set(np.floor(phases / (np.pi / 2)).tolist())
    assert quadrants == {-2, -1, 0, 1}


def test_a_telephone_line_has_its_band_and_its_levels():
    for hz, passes in [(100, False), (500, True), (1000, True), (3000, True), (3900, False), (6000, False)]:
        received = waveform.telephone(tone(hz))
        assert received.dtype == np.float32 and len(received) == 16_000
        power = np.square(received[2000:-2000]).mean() / 0.125
        assert power == pytest.approx(1, abs=0.05) if passes else power < 1e-3, hz
    loud = waveform.telephone(tone(1000))
    error = loud - tone(1000)
    assert 30 < 10 * np.log10(0.125 / np.square(error[2000:-2000]).mean()) < 45  # of 8 bits
    # levels are finer where the signal is faint
    faint = waveform.telephone(tone(1000) / 100) * 100
    assert 20 < 10 * np.log10(0.125 / np.square((faint - tone(1000))[2000:-2000]).mean()) < 45
    assert [len(waveform.telephone(wave(length))) for length in (0, 1, 2, 999, 1001)] == [0, 1, 2, 999, 1001]


def test_kinds_of_noise_and_telephone_lines_are_drawn():
    config = WaveformConfig(noise_probability=1.0, noise_kinds=("hum", "babble"), noise_snr_db=(0.0, 0.0))
    ones, draw = lambda count, generator: np.ones(count, np.float32), np.random.default_rng
    added = [waveform.augmented(tone(300), draw(seed), config, babble=ones) - tone(300) for seed in range(40)]
    assert 10 <= sum(np.ptp(noise) < 1e-6 for noise in added) <= 30
    level = np.sqrt(np.square(tone(300)).sum() / np.count_nonzero(tone(300)))
    assert all(np.sqrt(np.square(noise).mean()) == pytest.approx(level, rel=0.01) for noise in added)
    # noise of a manifest is taken without being asked for; colored noise is there without one
    twos = lambda count, generator: np.full(count, 2, np.float32)
    config = WaveformConfig(noise_probability=1.0, noise_snr_db=(0.0, 0.0))
    assert np.ptp(waveform.augmented(tone(300), draw(0), config, recorded_noise=twos, babble=ones) - tone(300)) < 1e-6
    assert np.ptp(waveform.augmented(tone(300), draw(0), config, babble=ones) - tone(300)) > 0.1
    config = WaveformConfig(telephone_probability=0.5)
    lines = [waveform.augmented(tone(6000), np.random.default_rng(seed), config) for seed in range(40)]
    assert 10 <= sum(abs(line[2000:-2000]).max() < 0.05 for line in lines) <= 30


def test_settings_added_since_are_recorded_where_they_are_used():
    assert set(vars(UNCHANGED)) >= waveform.WaveformConfig.ADDED and "pause" not in UNCHANGED.recorded()
    assert "pause_probability=0.1" in WaveformConfig(pause_probability=0.1).recorded()
    assert "join_across" not in WaveformConfig(pause_probability=0.1).recorded()


def test_gain():
    np.testing.assert_allclose(waveform.with_gain(tone(300), -20.0), tone(300) / 10, rtol=1e-6)


def test_draws_depend_on_the_generator_alone():
    config = WaveformConfig(noise_probability=0.5, gain_db=(-6.0, 6.0))
    make = lambda seed: waveform.augmented(tone(300), np.random.default_rng(seed), config)
    results = [make(seed) for seed in range(40)]
    np.testing.assert_array_equal(results[0], make(0))
    clean = [np.allclose(result / abs(result).max(), 2 * tone(300), atol=1e-3) for result in results]
    assert 10 <= sum(clean) <= 30
    gains = [
        20 * np.log10(abs(result).max() / 0.5) for result, is_clean in zip(results, clean, strict=True) if is_clean
    ]
    assert min(gains) < -3 and max(gains) > 3 and max(map(abs, gains)) <= 6.01
    snr_db = [10 * np.log10(np.mean(tone(300) ** 2) / np.mean((r - tone(300)) ** 2)) for r in _only_noise(40)]
    assert min(snr_db) > 9.5 and max(snr_db) < 20.5 and max(snr_db) - min(snr_db) > 5


def _only_noise(count):
    config = WaveformConfig(noise_probability=1.0, noise_snr_db=(10.0, 20.0))
    return [waveform.augmented(tone(300), np.random.default_rng(seed), config) for seed in range(count)]


def test_defaults():
    """What is drawn where only its probability is set."""
    settings = WaveformConfig()
    assert (settings.speeds, settings.silence_before_s, settings.silence_after_s) == ((1.0,), (0.0, 0.0), (0.0, 0.0))
    assert (settings.join_probability, settings.join_longest_s, settings.join_total_s) == (0.0, 3.0, 12.0)
    assert (settings.join_parts, settings.join_gap_s, settings.join_across) == (6, (0.0, 0.3), False)
    assert (settings.pause_probability, settings.pause_s) == (0.0, (0.3, 10.0))
    assert (settings.noise_probability, settings.noise_kinds, settings.noise_manifests) == (0.0, (), ())
    assert (settings.noise_snr_db, settings.noise_color) == ((5.0, 30.0), (0.0, 2.0))
    assert (settings.telephone_probability, settings.gain_db) == (0.0, (0.0, 0.0))


def test_the_default_changes_nothing():
    speech = tone(300)
    assert waveform.augmented(speech, np.random.default_rng(0), UNCHANGED) is speech
    assert UNCHANGED.speeds == (1.0,) and UNCHANGED.join_probability == 0 and RECIPE != UNCHANGED
    assert UNCHANGED.silence_before_s == UNCHANGED.silence_after_s == (0.0, 0.0)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"speeds": ()}, "speeds must be factors from 0.5 to 2, at least one, not ()"),
        ({"speeds": (0.9, 0.0)}, "speeds must be factors from 0.5 to 2, at least one, not (0.9, 0.0)"),
        ({"noise_probability": 1.5}, "noise_probability must be 0 to 1, not 1.5"),
        ({"gain_db": (3.0, -3.0)}, "gain_db must be a range (low, high), not (3.0, -3.0)"),
        ({"silence_after_s": (-1.0, 1.0)}, "silence_after_s must be a range (low, high), not (-1.0, 1.0)"),
        ({"join_parts": 1}, "join_parts must be at least 2, not 1"),
        ({"pause_probability": -0.1}, "pause_probability must be 0 to 1, not -0.1"),
        ({"telephone_probability": 2.0}, "telephone_probability must be 0 to 1, not 2.0"),
        ({"pause_s": (0.0, 2.0)}, "pause_s must be greater than 0, not (0.0, 2.0)"),
        ({"noise_kinds": ("recorded",)}, "noise_kinds must have recorded if there are noise_manifests, and only then"),
        (
            {"noise_kinds": ("hum",), "noise_manifests": (Path("m.jsonl"),)},
            "noise_kinds must have recorded if there are noise_manifests, and only then",
        ),
        ({"speeds": (1.0, 2.01)}, "speeds must be factors from 0.5 to 2, at least one, not (1.0, 2.01)"),
        ({"speeds": (0.49,)}, "speeds must be factors from 0.5 to 2, at least one, not (0.49,)"),
        ({"join_probability": 1.01}, "join_probability must be 0 to 1, not 1.01"),
        ({"noise_probability": -0.01}, "noise_probability must be 0 to 1, not -0.01"),
        ({"join_gap_s": (-0.1, 1.0)}, "join_gap_s must be a range (low, high), not (-0.1, 1.0)"),
        ({"pause_s": (2.0, 1.0)}, "pause_s must be a range (low, high), not (2.0, 1.0)"),
        ({"silence_before_s": (-0.1, 0.0)}, "silence_before_s must be a range (low, high), not (-0.1, 0.0)"),
        ({"noise_snr_db": (2.0, 1.0)}, "noise_snr_db must be a range (low, high), not (2.0, 1.0)"),
        ({"noise_color": (2.0, 1.0)}, "noise_color must be a range (low, high), not (2.0, 1.0)"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ConfigError) as caught:
        WaveformConfig(**options)
    assert str(caught.value) == message


def test_settings_at_their_limits():
    probabilities = ("join_probability", "pause_probability", "noise_probability", "telephone_probability")
    for value in (0.0, 1.0):
        WaveformConfig(**dict.fromkeys(probabilities, value))
    ranges = dict.fromkeys(("silence_before_s", "silence_after_s", "join_gap_s"), (0.0, 0.0))
    WaveformConfig(
        speeds=(0.5, 2.0), join_parts=2, pause_s=(0.1, 0.1), gain_db=(-3.0, -3.0), noise_snr_db=(-9.0, -9.0), **ranges
    )
    WaveformConfig(noise_kinds=("recorded", "hum"), noise_manifests=(Path("m.jsonl"),))
    WaveformConfig(noise_manifests=(Path("m.jsonl"),))
