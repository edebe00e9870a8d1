"""Converts Hugging Face's config.json and processor_config.json to our settings, and back.

The settings are those of NemotronAsrStreamingConfig, of its encoder and of its feature extractor in transformers 5.23.
The defaults are those of these classes, which differ from the released checkpoint's values.
"""

from collections.abc import Container
from typing import Any

from convert.errors import ConvertError, short
from convert.sections import Section, Settings
from nemojax.config import MAX_FILTER_VALUES, EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig
from nemojax.errors import ConfigError

FILE, PROCESSOR_FILE, EXTRACTOR_FILE = "config.json", "processor_config.json", "preprocessor_config.json"
MODEL_TYPE, ENCODER_TYPE = "nemotron_asr_streaming", "nemotron_asr_streaming_encoder"
MODEL, PROCESSOR = "NemotronAsrStreamingForRNNT", "NemotronAsrStreamingProcessor"
EXTRACTOR = "NemotronAsrStreamingFeatureExtractor"
LOOKAHEADS = (13, 6, 1, 0)  # if the processor lists none

# without effect on the output: where the model came from, what it returns, initial values, special tokens
COMMON_SKIPPED = (
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "model_type"),
    *("return_dict", "output_hidden_states", "output_attentions", "chunk_size_feed_forward", "problem_type"),
    *("id2label", "label2id", "is_encoder_decoder", "use_cache", "initializer_range"),
    *("_attn_implementation", "_attn_implementation_autoset"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "tie_word_embeddings"),
)
# at the top: a prompt network, code of its own, weights in another form
OTHER_MODELS = ("num_prompts", "prompt_intermediate_size", "auto_map", "quantization_config")
ENCODER_SKIPPED = (
    *("activation_dropout", "dropout_positions", "layerdrop"),  # in training only
    "max_position_embeddings",  # initial size of a buffer
)
ENCODER_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": (ENCODER_TYPE, ENCODER_TYPE),
    "hidden_act": ("silu", "silu"),
    "subsampling_factor": (8, 8),
    "subsampling_conv_kernel_size": (3, 3),
    "subsampling_conv_stride": (2, 2),
}
PROCESSOR_SKIPPED = ("processor_class", "blank_token", "decoder_type", "tokenizer_class")
EXTRACTOR_SKIPPED = (
    *("padding_side", "padding_value", "return_attention_mask", "processor_class"),  # how recordings are batched
)
EXTRACTOR_FIXED: dict[str, tuple[Any, ...]] = {
    "feature_extractor_type": (EXTRACTOR, EXTRACTOR),
    "mel_filters_dtype": ("float32", "float32"),
}


def to_config(settings: Any, processor: Any, extractor: Any, skipped: Container[str] = ()) -> ModelConfig:
    """Converts parsed JSON files to our settings; see `read`."""
    return read(settings, processor, extractor, skipped).config


def read(settings: Any, processor: Any, extractor: Any, skipped: Container[str] = ()) -> Settings:
    """Converts parsed JSON files to our settings; returns also notes on what they leave out.

    A setting of the encoder or of the features that is unknown is an error, since it could change the result. At the
    top of config.json an unknown setting is a note.

    Args:
      settings: config.json.
      processor: processor_config.json, or None if there is none.
      extractor: preprocessor_config.json, in which older versions keep the feature extractor's settings, or None.
      skipped: unknown settings, by full name, that the user knows to have no effect on the output.

    Raises:
      ConvertError: names every setting that is missing, unknown, or has an unsupported value.
    """
    top = Section(settings)
    kind = top.values.get("model_type")
    if kind != MODEL_TYPE:
        prompt = " (it has a prompt network after the encoder)" if "nemotron3_5" in short(kind) else ""
        raise ConvertError(f"{FILE}: model_type: {short(kind)} is not supported{prompt}, only {MODEL_TYPE}")
    processor_section = Section({} if processor is None else processor)
    inner = top.section("encoder_config")
    mel_bins = inner.take("num_mel_bins", int, 80)
    features = _features(processor_section, extractor, mel_bins, skipped)
    encoder = _encoder(inner, processor_section, skipped)
    prediction = PredictionConfig(top.take("decoder_hidden_size", int, 640), top.take("num_decoder_layers", int, 2))
    joint = JointConfig(top.take("joint_hidden_size", int, prediction.width))
    labels = top.take("vocab_size", int, 1025)
    top.require("blank_token_id", top.take("blank_token_id", int, 1024) == labels - 1, "blank must be the last label")
    max_symbols = top.take("max_symbols_per_step", int, 10)
    top.only("hidden_act", ["relu"], "relu")
    top.only("durations", [[], None], [])
    for key in OTHER_MODELS:
        top.only(key, [None], None)
    top.skip(COMMON_SKIPPED)
    top.ignore_rest(skipped)
    top.check(FILE)
    processor_section.check(PROCESSOR_FILE)
    try:
        config = ModelConfig(features, encoder, prediction, joint, labels - 1, max_symbols)
        return Settings(config, top.all_notes())
    except ConfigError as error:
        raise ConvertError(f"{FILE}: {error}") from None


def _features(processor: Section, extractor: Any, mel_bins: int, skipped: Container[str]) -> FeatureConfig:
    """Reads the feature extractor's settings: from the processor's file, from their own, or the class's defaults."""
    if "feature_extractor" not in processor.values and extractor is not None:
        section = Section(extractor, "feature_extractor.", processor)
    else:
        section = processor.section("feature_extractor", optional=True)
    for key, (default, *allowed) in EXTRACTOR_FIXED.items():
        section.only(key, allowed, default)
    if section.values:
        section.only("feature_size", [mel_bins], 80)
    config = FeatureConfig(
        sample_rate_hz=section.take("sampling_rate", int, 16_000),
        window_samples=section.take("win_length", int, 400),
        hop_samples=section.take("hop_length", int, 160),
        fft_samples=section.take("n_fft", int, 512),
        mel_bins=mel_bins,
        preemphasis=section.take("preemphasis", float, 0.97),
    )
    size = config.mel_bins * (config.fft_samples // 2 + 1)
    section.require("n_fft", size <= MAX_FILTER_VALUES, "with the number of mel bins it gives too many mel filters")
    section.skip(EXTRACTOR_SKIPPED)
    section.close(skipped)
    return config


def _encoder(section: Section, processor: Section, skipped: Container[str]) -> EncoderConfig:
    """Reads the encoder's settings, and the look-aheads from the processor's."""
    for key, (default, *allowed) in ENCODER_FIXED.items():
        section.only(key, allowed, default)
    heads, use_bias = section.take("num_attention_heads", int, 8), section.take("attention_bias", bool, True)
    section.only("num_key_value_heads", [heads], heads)
    section.only("convolution_bias", [use_bias], True)
    left = section.take("sliding_window", int, 71) - 1
    config = EncoderConfig(
        layers=section.take("num_hidden_layers", int, 24),
        width=section.take("hidden_size", int, 1024),
        heads=heads,
        feedforward_width=section.take("intermediate_size", int, 4096),
        subsampling_channels=section.take("subsampling_conv_channels", int, 256),
        convolution_kernel=section.take("conv_kernel_size", int, 9),
        left_context_frames=left,
        lookaheads=_lookaheads(section, processor, left),
        use_bias=use_bias,
        scale_input=section.take("scale_input", bool, True),
        dropout=section.take("dropout", float, 0.1),
        attention_dropout=section.take("attention_dropout", float, 0.1),
    )
    section.skip((*ENCODER_SKIPPED, *COMMON_SKIPPED))
    section.close(skipped)
    processor.skip(PROCESSOR_SKIPPED)
    processor.close(skipped)
    return config


def _lookaheads(section: Section, processor: Section, left: int) -> tuple[int, ...]:
    """Returns the trained look-aheads, the default first; the processor's settings override the encoder's."""
    fitting = [n for n in LOOKAHEADS if left > 0 and left % (n + 1) == 0]
    supported = processor.take("supported_num_lookahead_tokens", list, []) or (
        section.take("supported_num_lookahead_tokens", list, fitting)
    )
    default = processor.take("default_num_lookahead_tokens", int, section.take("default_num_lookahead_tokens", int, 13))
    section.skip(["supported_num_lookahead_tokens"])
    if not all(type(n) is int and n >= 0 for n in supported):
        processor.problems.append(f"supported_num_lookahead_tokens: {short(supported)} is not a list of whole numbers")
        return (0,)
    return (default, *(n for n in supported if n != default))


def to_settings(config: ModelConfig, dtype: str, pad: int) -> dict[str, Any]:
    """Returns a config.json with which transformers builds this model; settings for training have their defaults.

    Raises:
      ConvertError: transformers can't express `config`.
    """
    encoder, features = config.encoder, config.features
    if config.joint.width != config.prediction.width:
        raise ConvertError(
            f"transformers has one width for the prediction and the joint network, not "
            f"{config.prediction.width} and {config.joint.width}"
        )
    if features.log_guard != FeatureConfig.log_guard:
        raise ConvertError(f"transformers has no setting for the log-mel guard {features.log_guard}")
    return {
        "architectures": [MODEL],
        "blank_token_id": config.blank,
        "decoder_hidden_size": config.prediction.width,
        "dtype": dtype,
        "encoder_config": {
            "activation_dropout": encoder.dropout,
            "attention_bias": encoder.use_bias,
            "attention_dropout": encoder.attention_dropout,
            "conv_kernel_size": encoder.convolution_kernel,
            "convolution_bias": encoder.use_bias,
            "default_num_lookahead_tokens": encoder.lookaheads[0],
            "dropout": encoder.dropout,
            "dropout_positions": 0.0,
            "hidden_act": "silu",
            "hidden_size": encoder.width,
            "initializer_range": 0.02,
            "intermediate_size": encoder.feedforward_width,
            "layerdrop": 0.0,
            "max_position_embeddings": 5000,
            "model_type": ENCODER_TYPE,
            "num_attention_heads": encoder.heads,
            "num_hidden_layers": encoder.layers,
            "num_key_value_heads": encoder.heads,
            "num_mel_bins": features.mel_bins,
            "scale_input": encoder.scale_input,
            "sliding_window": encoder.left_context_frames + 1,
            "subsampling_conv_channels": encoder.subsampling_channels,
            "subsampling_conv_kernel_size": 3,
            "subsampling_conv_stride": 2,
            "subsampling_factor": config.subsampling_factor,
        },
        "hidden_act": "relu",
        "initializer_range": 0.02,
        "is_encoder_decoder": True,
        "max_symbols_per_step": config.max_symbols_per_frame,
        "model_type": MODEL_TYPE,
        "num_decoder_layers": config.prediction.layers,
        "pad_token_id": pad,
        "vocab_size": config.labels,
    }


def to_processor(config: ModelConfig) -> dict[str, Any]:
    """Returns a processor_config.json."""
    features, lookaheads = config.features, config.encoder.lookaheads
    return {
        "blank_token": "<blank>",
        "default_num_lookahead_tokens": lookaheads[0],
        "feature_extractor": {
            "feature_extractor_type": EXTRACTOR,
            "feature_size": features.mel_bins,
            "hop_length": features.hop_samples,
            "n_fft": features.fft_samples,
            "padding_side": "right",
            "padding_value": 0.0,
            "preemphasis": features.preemphasis,
            "return_attention_mask": True,
            "sampling_rate": features.sample_rate_hz,
            "win_length": features.window_samples,
        },
        "processor_class": PROCESSOR,
        "supported_num_lookahead_tokens": list(lookaheads),
    }
