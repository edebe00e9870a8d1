import copy
import json

import pytest

from convert.huggingface.settings import read, to_config, to_processor, to_settings
from nemojax.config import PRESETS, EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig
from tests.convert.samples import CONFIG, UNUSUAL

RELEASED = PRESETS["0.6b"]
SETTINGS, PROCESSOR = to_settings(RELEASED, "float32", 0), to_processor(RELEASED)
# further settings in files of this version of transformers and of others
MORE = {
    "transformers_version": "5.23.0",
    "durations": [],
    "joint_hidden_size": 640,
    "decoder_start_token_id": 1024,
    "id2label": {"0": "LABEL_0"},
    "torch_dtype": "float32",
}


def changed(path: str, value, base=SETTINGS) -> dict:
    made = copy.deepcopy(base)
    *sections, key = path.split(".")
    place = made
    for section in sections:
        place = place[section]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return made


@pytest.mark.parametrize("config", [PRESETS["0.6b"], PRESETS["114m"], CONFIG, UNUSUAL])
def test_round_trip(config):
    settings, processor = to_settings(config, "float32", 0), to_processor(config)
    settings, processor = json.loads(json.dumps(settings)), json.loads(json.dumps(processor))
    assert to_config(settings, processor, None) == config
    assert to_config(settings | MORE, processor, None) == config if config == RELEASED else True


def test_defaults_are_those_of_transformers_class():
    """80 mel bins, biases, input scaling."""
    config = to_config({"model_type": "nemotron_asr_streaming", "encoder_config": {}}, None, None)
    assert config == ModelConfig(
        FeatureConfig(16_000, window_samples=400, hop_samples=160, fft_samples=512, mel_bins=80, preemphasis=0.97),
        EncoderConfig(
            layers=24,
            width=1024,
            heads=8,
            feedforward_width=4096,
            subsampling_channels=256,
            convolution_kernel=9,
            left_context_frames=70,
            lookaheads=(13, 6, 1, 0),
            use_bias=True,
            scale_input=True,
            dropout=0.1,
            attention_dropout=0.1,
        ),
        PredictionConfig(width=640, layers=2),
        JointConfig(width=640),
        vocabulary=1024,
        max_symbols_per_frame=10,
    )


# settings without effect, by the file's section
WITHOUT_EFFECT = [
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "chunk_size_feed_forward",
    "problem_type",
    "id2label",
    "label2id",
    "is_encoder_decoder",
    "use_cache",
    "initializer_range",
    "_attn_implementation",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "tie_word_embeddings",
]
IN_TRAINING = ["activation_dropout", "dropout_positions", "layerdrop", "max_position_embeddings"]


def test_settings_without_effect():
    top = SETTINGS | dict.fromkeys(WITHOUT_EFFECT, "anything")
    top["encoder_config"] = SETTINGS["encoder_config"] | dict.fromkeys([*WITHOUT_EFFECT, *IN_TRAINING], "anything")
    names = ["processor_class", "blank_token", "decoder_type", "tokenizer_class"]
    processor = PROCESSOR | dict.fromkeys(names, "anything")
    names = ["padding_side", "padding_value", "return_attention_mask", "processor_class"]
    processor["feature_extractor"] = PROCESSOR["feature_extractor"] | dict.fromkeys(names, "anything")
    assert read(top, processor, None) == (RELEASED, [])


def test_settings_of_the_release():
    assert SETTINGS == {
        "architectures": ["NemotronAsrStreamingForRNNT"],
        "blank_token_id": 1024,
        "decoder_hidden_size": 640,
        "dtype": "float32",
        "encoder_config": {
            "activation_dropout": 0.1,
            "attention_bias": False,
            "attention_dropout": 0.1,
            "conv_kernel_size": 9,
            "convolution_bias": False,
            "default_num_lookahead_tokens": 13,
            "dropout": 0.1,
            "dropout_positions": 0.0,
            "hidden_act": "silu",
            "hidden_size": 1024,
            "initializer_range": 0.02,
            "intermediate_size": 4096,
            "layerdrop": 0.0,
            "max_position_embeddings": 5000,
            "model_type": "nemotron_asr_streaming_encoder",
            "num_attention_heads": 8,
            "num_hidden_layers": 24,
            "num_key_value_heads": 8,
            "num_mel_bins": 128,
            "scale_input": False,
            "sliding_window": 71,
            "subsampling_conv_channels": 256,
            "subsampling_conv_kernel_size": 3,
            "subsampling_conv_stride": 2,
            "subsampling_factor": 8,
        },
        "hidden_act": "relu",
        "initializer_range": 0.02,
        "is_encoder_decoder": True,
        "max_symbols_per_step": 10,
        "model_type": "nemotron_asr_streaming",
        "num_decoder_layers": 2,
        "pad_token_id": 0,
        "vocab_size": 1025,
    }
    assert to_settings(RELEASED, "bfloat16", 3) == SETTINGS | {"dtype": "bfloat16", "pad_token_id": 3}
    assert PROCESSOR == {
        "blank_token": "<blank>",
        "default_num_lookahead_tokens": 13,
        "feature_extractor": {
            "feature_extractor_type": "NemotronAsrStreamingFeatureExtractor",
            "feature_size": 128,
            "hop_length": 160,
            "n_fft": 512,
            "padding_side": "right",
            "padding_value": 0.0,
            "preemphasis": 0.97,
            "return_attention_mask": True,
            "sampling_rate": 16_000,
            "win_length": 400,
        },
        "processor_class": "NemotronAsrStreamingProcessor",
        "supported_num_lookahead_tokens": [13, 6, 1, 0],
    }


def test_lookaheads():
    looks = lambda settings, processor: to_config(settings, processor, None).encoder.lookaheads
    assert looks(SETTINGS, None) == (13, 6, 1, 0)
    assert looks(changed("encoder_config.default_num_lookahead_tokens", 1), None) == (1, 13, 6, 0)
    older = changed("encoder_config.supported_num_lookahead_tokens", [6, 0])
    assert looks(changed("encoder_config.default_num_lookahead_tokens", 6, older), None) == (6, 0)
    assert looks(older, PROCESSOR) == (13, 6, 1, 0)
    chosen = PROCESSOR | {"default_num_lookahead_tokens": 6, "supported_num_lookahead_tokens": [13, 6]}
    assert looks(SETTINGS, chosen) == (6, 13)
    short = changed("encoder_config.sliding_window", 57, changed("encoder_config.default_num_lookahead_tokens", 3))
    assert looks(short, None) == (3, 13, 6, 1, 0)
    # only those that divide the left context are assumed
    bare = changed("encoder_config.sliding_window", 57)
    for name in ("supported_num_lookahead_tokens", "default_num_lookahead_tokens"):
        bare["encoder_config"].pop(name, None)
    assert looks(changed("encoder_config.sliding_window", 29, bare), None) == (13, 6, 1, 0)
    six = changed("encoder_config.sliding_window", 8, changed("encoder_config.default_num_lookahead_tokens", 6, bare))
    assert looks(six, None) == (6, 0)


def test_feature_extractor_settings_in_a_file_of_their_own():
    extractor = PROCESSOR["feature_extractor"] | {"preemphasis": 0.9}
    side = {key: value for key, value in PROCESSOR.items() if key != "feature_extractor"}
    assert to_config(SETTINGS, side, extractor).features.preemphasis == 0.9
    assert to_config(SETTINGS, PROCESSOR, extractor).features.preemphasis == 0.97
    assert to_config(SETTINGS, None, extractor).features.preemphasis == 0.9


def test_unknown_settings_at_the_top_are_a_note():
    found = read(SETTINGS | {"flash": 1, "my_notes": {"a": [1]}}, PROCESSOR, None, ["my_notes"])
    assert found == (to_config(SETTINGS, PROCESSOR, None), ["settings that nemojax does not use: flash"])


def test_unknown_settings_can_be_skipped():
    made = changed("encoder_config.flash", 1, changed("more", 1))
    assert to_config(made, PROCESSOR | {"other": 1}, None, ("encoder_config.flash", "more", "other")) == RELEASED
