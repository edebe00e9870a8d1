import dataclasses
import json

import pytest

from nemojax.config import PRESETS, EncoderConfig, ModelConfig, TextConfig
from nemojax.errors import ConfigError
from tests.helpers.messages import whole

RELEASED = PRESETS["0.6b"]


def test_derived_numbers_of_the_release():
    assert RELEASED.frame_samples == 1280 and RELEASED.frame_ms == 80
    assert RELEASED.history_samples == 1080 and RELEASED.blank == 1024 and RELEASED.labels == 1025
    assert [RELEASED.chunk_ms(r) for r in (0, 1, 6, 13)] == [80, 160, 560, 1120]
    assert RELEASED.features.overlap_samples == 240


def test_the_settings_of_the_releases():
    fields = lambda settings: tuple(getattr(settings, field.name) for field in dataclasses.fields(settings))
    family = PRESETS["114m"]
    assert fields(RELEASED.features) == (16_000, 400, 160, 512, 128, 0.97, 2.0**-24)
    assert fields(family.features) == (16_000, 400, 160, 512, 80, 0.97, 2.0**-24)
    common = 256, 9, 70, (13, 6, 1, 0)  # channels, convolution, left context, look-aheads
    assert fields(RELEASED.encoder) == (24, 1024, 8, 4096, *common, False, False, 0.1, 0.1)
    assert fields(family.encoder) == (17, 512, 8, 2048, *common, True, True, 0.1, 0.1)
    assert [fields(model.prediction) for model in (RELEASED, family)] == [(640, 2, 0.2), (640, 1, 0.2)]
    assert {fields(model.joint) for model in (RELEASED, family)} == {(640, 0.2)}
    assert {(model.vocabulary, model.max_symbols_per_frame) for model in (RELEASED, family)} == {(1024, 10)}
    assert RELEASED.text == family.text == TextConfig((), False)


@pytest.mark.parametrize("samples,frames", [(0, 0), (159, 0), (160, 1), (320, 2), (1440, 2), (1599, 2), (1600, 3)])
def test_encoder_frames(samples, frames):
    assert RELEASED.encoder_frames(samples) == frames


@pytest.mark.parametrize("preset", PRESETS)
def test_json_there_and_back(preset):
    assert ModelConfig.from_json(PRESETS[preset].to_json()) == PRESETS[preset]


def test_older_checkpoints_have_no_settings_of_text():
    values = json.loads(RELEASED.to_json())
    del values["text"]
    assert ModelConfig.from_json(json.dumps(values)) == RELEASED
    text = ModelConfig.from_json(json.dumps(values | {"text": {"events": ["<EOU>"]}})).text
    assert text == TextConfig(("<EOU>",), False)
    with pytest.raises(
        ConfigError, match=whole("unknown settings: text.event; the settings here are events, join_punctuation")
    ):
        ModelConfig.from_json(json.dumps(values | {"text": {"event": []}}))
    for text in (3, None, [], "x"):
        with pytest.raises(ConfigError, match="text must be an object"):
            ModelConfig.from_json(json.dumps(values | {"text": text}))


@pytest.mark.parametrize("lookahead", [-1, 2, 70, 99])
def test_lookaheads_that_do_not_fit_are_refused(lookahead):
    with pytest.raises(ConfigError, match=r"lookahead -?\d+ does not fit.*\(13, 6, 1, 0\)"):
        RELEASED.chunk_frames(lookahead)


@pytest.mark.parametrize("lookahead", [0, 1, 4, 6, 9, 13, 34, 69])
def test_any_lookahead_that_divides_the_left_context(lookahead):
    assert RELEASED.chunk_frames(lookahead) == lookahead + 1


def edited(**changes):
    values = json.loads(RELEASED.to_json())
    values["encoder"].update(changes)
    return json.dumps(values)


@pytest.mark.parametrize(
    "text,message",
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        (edited(flash=1), r"unknown settings: encoder\.flash"),
        (edited(layers="24"), r"encoder\.layers must be a whole number"),
        (edited(layers=True), r"encoder\.layers must be a whole number"),
        (edited(layers=0), r"encoder\.layers must be at least 1"),
        (edited(heads=7), r"not a multiple of encoder\.heads"),
        (edited(lookaheads=[13, 2]), "lookahead 2 does not fit"),
        (edited(lookaheads=[]), r"encoder\.lookaheads is empty"),
        (edited(lookaheads="13"), r"encoder\.lookaheads must be a list"),
        ("{}", "missing settings: features, encoder"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_json(text)


# the largest value of each setting; the smallest is 1
LARGEST = {
    **dict.fromkeys(("encoder.layers", "prediction.layers"), 128),
    **dict.fromkeys(
        (
            *("encoder.width", "encoder.heads", "encoder.feedforward_width", "encoder.subsampling_channels"),
            *("encoder.convolution_kernel", "encoder.left_context_frames", "features.hop_samples"),
            *("features.fft_samples", "features.mel_bins", "prediction.width", "joint.width", "vocabulary"),
            "max_symbols_per_frame",
        ),
        1 << 17,
    ),
    "features.sample_rate_hz": 1_000_000,
}


def with_setting(name: str, value, config: ModelConfig = RELEASED) -> ModelConfig:
    section, _, field = name.rpartition(".")
    if not section:
        return dataclasses.replace(config, **{field: value})
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{field: value})})


@pytest.mark.parametrize("name", LARGEST)
def test_limits_of_every_size(name):
    for value, message in (
        (0, f"{name} must be at least 1, not 0"),
        (LARGEST[name] + 1, f"{name} must be at most {LARGEST[name]}, not {LARGEST[name] + 1}"),
    ):
        with pytest.raises(ConfigError) as caught:
            with_setting(name, value)
        assert str(caught.value) == message
    try:
        with_setting(name, LARGEST[name])
    except ConfigError as error:  # only where it does not fit other settings
        assert "must be at most" not in str(error) or "features." in name


@pytest.mark.parametrize(
    "name", ["encoder.dropout", "encoder.attention_dropout", "prediction.dropout", "joint.dropout"]
)
def test_limits_of_every_rate(name):
    for value in (0.0, 1.0):
        with_setting(name, value)
    for value in (-0.01, 1.01):
        with pytest.raises(ConfigError) as caught:
            with_setting(name, value)
        assert str(caught.value) == f"{name} must be 0 to 1, not {value}"


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"encoder.width": 33, "encoder.heads": 3}, "encoder.width must be even for sinusoidal positions, not 33"),
        ({"encoder.heads": 3}, "encoder.width 1024 is not a multiple of encoder.heads 3"),
        ({"features.hop_samples": 401}, "features: hop_samples <= window_samples <= fft_samples does not hold"),
        ({"features.window_samples": 513}, "features: hop_samples <= window_samples <= fft_samples does not hold"),
        (
            {"features.fft_samples": 4096, "features.window_samples": 2562},
            "features: window_samples must be at most 2560, 16 hops",
        ),
        ({"features.preemphasis": 1.01}, "features.preemphasis must be 0 to 1, not 1.01"),
        ({"features.preemphasis": -0.01}, "features.preemphasis must be 0 to 1, not -0.01"),
        ({"features.log_guard": 1.01}, "features.log_guard must be 0 to 1, not 1.01"),
        ({"encoder.lookaheads": ()}, "encoder.lookaheads is empty"),
        ({"encoder.lookaheads": (0,) * 1001}, "encoder.lookaheads must list at most 1000, not 1001"),
        ({"text.events": ("x",) * 1001}, "text.events must list at most 1000, not 1001"),
        (
            {"features.mel_bins": 1 << 14},  # 257 frequencies each
            "features: mel_bins and fft_samples give more than 4194304 filter values",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other(changes, message):
    with pytest.raises(ConfigError) as caught:
        for section in {name.split(".")[0] for name in changes}:
            fields = {name.split(".")[1]: value for name, value in changes.items() if name.startswith(section)}
            dataclasses.replace(RELEASED, **{section: dataclasses.replace(getattr(RELEASED, section), **fields)})
    assert str(caught.value) == message


def test_settings_that_just_fit():
    features = dataclasses.replace(RELEASED.features, window_samples=2560, fft_samples=4096)
    assert dataclasses.replace(RELEASED, features=features).history_samples == 0
    with_setting("encoder.lookaheads", (0,) * 1000)
    with_setting("text.events", ("x",) * 1000)
    for name in ("hop_samples", "fft_samples"):  # as long as the window
        with_setting(f"features.{name}", 400)
    for name in ("preemphasis", "log_guard"):
        for value in (0.0, 1.0):
            with_setting(f"features.{name}", value)
    assert dataclasses.replace(RELEASED.features, fft_samples=32_766, mel_bins=256).fft_samples
    with_setting("features", dataclasses.replace(RELEASED.features, fft_samples=32_766, mel_bins=256))  # 2^22 values


def test_numbers_of_other_settings():
    """Every number follows from the settings; none is that of the release."""
    encoder = dataclasses.replace(RELEASED.encoder, width=24, heads=4, left_context_frames=30, lookaheads=(2, 9, 0))
    features = dataclasses.replace(RELEASED.features, sample_rate_hz=8000, hop_samples=100, window_samples=300)
    config = dataclasses.replace(RELEASED, encoder=encoder, features=features, vocabulary=50)
    assert (encoder.head_width, encoder.largest_chunk_frames, features.overlap_samples) == (6, 10, 200)
    assert (config.frame_samples, config.frame_ms, config.history_samples) == (800, 100, 650)
    assert (config.blank, config.labels, config.subsampling_factor) == (50, 51, 8)
    assert (config.chunk_frames(2), config.chunk_samples(2), config.chunk_ms(2)) == (3, 2400, 300)
    assert [config.log_mel_frames(samples) for samples in (99, 100, 899)] == [0, 1, 8]
    assert [config.encoder_frames(samples) for samples in (99, 100, 199, 200, 999, 1000)] == [0, 1, 1, 2, 2, 3]


def test_left_context_is_a_setting():
    encoder = dataclasses.replace(EncoderConfig(), left_context_frames=56, lookaheads=(3, 0, 6, 13))
    assert ModelConfig(encoder=encoder).chunk_frames(3) == 4
