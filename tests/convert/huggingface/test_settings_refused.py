"""Settings that are refused, and the whole message on each."""

import dataclasses

import pytest

from convert.errors import ConvertError
from convert.huggingface.settings import to_config, to_settings
from nemojax.config import FeatureConfig
from tests.convert.huggingface.test_settings import PROCESSOR, SETTINGS, changed
from tests.convert.samples import CONFIG, FAMILY
from tests.helpers.messages import whole


@pytest.mark.parametrize(
    "path,value,message",
    [
        (
            "model_type",
            "nemotron3_5_asr",
            (
                "config.json: model_type: 'nemotron3_5_asr' is not supported (it has a prompt network "
                "after the encoder), only nemotron_asr_streaming"
            ),
        ),
        (
            "model_type",
            "parakeet_rnnt",
            "config.json: model_type: 'parakeet_rnnt' is not supported, only nemotron_asr_streaming",
        ),
        ("model_type", ..., "config.json: model_type: None is not supported, only nemotron_asr_streaming"),
        ("hidden_act", "tanh", "config.json: hidden_act: tanh is not supported, only relu"),
        ("durations", [0, 1], "config.json: durations: [0, 1] is not supported, only [] or null"),
        ("blank_token_id", 0, "config.json: blank_token_id: 0 is not supported: blank must be the last label"),
        (
            "vocab_size",
            "1025",
            (
                "config.json: vocab_size must be int, not '1025'; blank_token_id: 1024 is not supported: "
                "blank must be the last label"
            ),
        ),
        ("encoder_config", ..., "config.json: encoder_config is missing"),
        ("encoder_config", [], "config.json: encoder_config must be a mapping, not []"),
        (
            "auto_map",
            {"AutoModel": "evil.Model"},
            "config.json: auto_map: {'AutoModel': 'evil.Model'} is not supported, only null",
        ),
        ("num_prompts", 128, "config.json: num_prompts: 128 is not supported, only null"),
        (
            "quantization_config",
            {"bits": 4},
            "config.json: quantization_config: {'bits': 4} is not supported, only null",
        ),
        (
            "encoder_config.hidden_act",
            "relu",
            "config.json: encoder_config.hidden_act: relu is not supported, only silu",
        ),
        (
            "encoder_config.subsampling_factor",
            4,
            "config.json: encoder_config.subsampling_factor: 4 is not supported, only 8",
        ),
        (
            "encoder_config.subsampling_conv_kernel_size",
            5,
            "config.json: encoder_config.subsampling_conv_kernel_size: 5 is not supported, only 3",
        ),
        (
            "encoder_config.convolution_bias",
            True,
            "config.json: encoder_config.convolution_bias: true is not supported, only false",
        ),
        (
            "encoder_config.convolution_bias",
            ...,
            "config.json: encoder_config.convolution_bias: true (the default) is not supported, only false",
        ),
        (
            "encoder_config.num_key_value_heads",
            4,
            "config.json: encoder_config.num_key_value_heads: 4 is not supported, only 8",
        ),
        ("encoder_config.sliding_window", 1, "config.json: encoder.left_context_frames must be at least 1, not 0"),
        (
            "encoder_config.sliding_window",
            70,
            (
                "config.json: lookahead 13 does not fit: lookahead + 1 must divide the left context of "
                "69 frames; this model was trained with (13, 6, 1, 0)"
            ),
        ),
        (
            "encoder_config.num_mel_bins",
            80,
            "processor_config.json: feature_extractor.feature_size: 128 is not supported, only 80",
        ),
        (
            "encoder_config.flash",
            1,
            "config.json: encoder_config.flash is an unknown setting (--skip-setting encoder_config.flash ignores it)",
        ),
        (
            "encoder_config.model_type",
            "parakeet_encoder",
            (
                "config.json: encoder_config.model_type: parakeet_encoder is not supported, only "
                "nemotron_asr_streaming_encoder"
            ),
        ),
        (
            "encoder_config.subsampling_conv_stride",
            3,
            "config.json: encoder_config.subsampling_conv_stride: 3 is not supported, only 2",
        ),
        ("encoder_config.num_hidden_layers", 0, "config.json: encoder.layers must be at least 1, not 0"),
    ],
)
def test_unsupported_settings_are_named(path, value, message):
    with pytest.raises(ConvertError) as caught:
        to_config(changed(path, value), PROCESSOR, None)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "path,value,message",
    [
        (
            "feature_extractor.feature_size",
            80,
            "processor_config.json: feature_extractor.feature_size: 80 is not supported, only 128",
        ),
        (
            "feature_extractor.mel_filters_dtype",
            "bfloat16",
            "processor_config.json: feature_extractor.mel_filters_dtype: bfloat16 is not supported, only float32",
        ),
        (
            "feature_extractor.feature_extractor_type",
            "ParakeetFeatureExtractor",
            (
                "processor_config.json: feature_extractor.feature_extractor_type: "
                "ParakeetFeatureExtractor is not supported, only NemotronAsrStreamingFeatureExtractor"
            ),
        ),
        (
            "feature_extractor.win_length",
            1024,
            "config.json: features: hop_samples <= window_samples <= fft_samples does not hold",
        ),
        (
            "feature_extractor.flash",
            1,
            (
                "processor_config.json: feature_extractor.flash is an unknown setting (--skip-setting "
                "feature_extractor.flash ignores it)"
            ),
        ),
        ("feature_extractor", 1, "processor_config.json: feature_extractor must be a mapping, not 1"),
        (
            "supported_num_lookahead_tokens",
            ["13"],
            "processor_config.json: supported_num_lookahead_tokens: ['13'] is not a list of whole numbers",
        ),
        (
            "default_num_lookahead_tokens",
            2,
            (
                "config.json: lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 "
                "frames; this model was trained with (2, 13, 6, 1, 0)"
            ),
        ),
        (
            "num_prompts",
            128,
            "processor_config.json: num_prompts is an unknown setting (--skip-setting num_prompts ignores it)",
        ),
        (
            "feature_extractor.n_fft",
            1 << 17,
            (
                "processor_config.json: feature_extractor.n_fft: 131072 is not supported: with the "
                "number of mel bins it gives too many mel filters"
            ),
        ),
        (
            "supported_num_lookahead_tokens",
            [-1],
            "processor_config.json: supported_num_lookahead_tokens: [-1] is not a list of whole numbers",
        ),
    ],
)
def test_unsupported_settings_of_the_processor_are_named(path, value, message):
    with pytest.raises(ConvertError) as caught:
        to_config(SETTINGS, changed(path, value, PROCESSOR), None)
    assert str(caught.value) == message


def test_models_that_transformers_can_not_express():
    with pytest.raises(
        ConvertError, match=whole("transformers has one width for the prediction and the joint network, not 12 and 8")
    ):
        to_settings(FAMILY, "float32", 0)
    guarded = dataclasses.replace(CONFIG, features=FeatureConfig(log_guard=1e-6))
    with pytest.raises(ConvertError, match=whole("transformers has no setting for the log-mel guard 1e-06")):
        to_settings(guarded, "float32", 0)
