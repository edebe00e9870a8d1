import dataclasses
import json

import pytest
import yaml

from convert.errors import ConvertError
from convert.nemo.recipe import dump, to_settings
from convert.nemo.settings import parse, to_config
from nemojax.config import PRESETS, JointConfig, PredictionConfig
from tests.convert.samples import CONFIG, FAMILY, UNUSUAL, settings

# with what only NeMo can express
ALL_UNUSUAL = dataclasses.replace(
    UNUSUAL,
    features=dataclasses.replace(UNUSUAL.features, sample_rate_hz=8000, log_guard=0.125),
    prediction=PredictionConfig(width=20, layers=3, dropout=0.35),
    joint=JointConfig(width=28, dropout=0.45),
)


@pytest.mark.parametrize("config", [*PRESETS.values(), CONFIG, FAMILY, ALL_UNUSUAL])
def test_round_trip(config):
    texts = [f"piece{i}" for i in range(config.vocabulary)]
    made = to_settings(config, texts, {"model_path": "0_tokenizer.model"})
    again = parse(dump(made))
    assert again == made and to_config(again, config.vocabulary) == config


def test_windows_that_seconds_can_not_express():
    """NeMo truncates seconds x rate, which for these lengths is a sample too short."""
    lengths = [n for n in range(320, 1024) if int(n / 16_000 * 16_000) != n]
    assert lengths
    for length in lengths[:3]:
        features = dataclasses.replace(CONFIG.features, window_samples=length, fft_samples=1024)
        config = dataclasses.replace(CONFIG, features=features)
        assert to_config(settings(config), config.vocabulary) == config


def test_strings_that_look_like_other_types_stay_strings():
    pieces = ["y", "n", "No", "true", "1e3", "1_0", "12:30", "~", "null", "0x1F", ".5", "-", "▁the", "é", "'", '"', "#"]
    assert yaml.safe_load(dump({"labels": pieces}))["labels"] == pieces
    assert json.loads(json.dumps(pieces)) == pieces
    for text in ("y", "n", "1e3", "1_0", ".5", "-"):  # some YAML readers parse these as other types without quotes
        assert f"- '{text}'\n" in dump({"labels": [text]}).decode()


def test_a_model_that_nemo_can_not_express():
    encoder = dataclasses.replace(CONFIG.encoder, feedforward_width=70)
    with pytest.raises(ConvertError, match="not a multiple of 32"):
        settings(dataclasses.replace(CONFIG, encoder=encoder))
