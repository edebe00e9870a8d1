"""Converts NeMo's model_config.yaml to our settings.

The settings are those of ConformerEncoder, RNNTDecoder, RNNTJoint and AudioToMelSpectrogramPreprocessor in NeMo 3.0.0.
The tables list each setting that has one supported meaning, with NeMo's default, which applies if a file leaves the
setting out. A setting of these parts that is unknown is an error, since it could change the result. Beside them, and in
the sections for decoding and for the tokenizer, an unknown setting is a note.
"""

from collections.abc import Container, Mapping
from typing import Any

from convert.errors import ConvertError, as_written, listed, short
from convert.nemo import decoding
from convert.nemo.kinds import TRANSDUCERS, other_kinds
from convert.sections import MAX_NUMBER, Section, Settings, read_yaml
from nemojax.config import (
    MAX_FILTER_VALUES,
    MAX_LAYERS,
    EncoderConfig,
    FeatureConfig,
    JointConfig,
    ModelConfig,
    PredictionConfig,
)
from nemojax.errors import ConfigError

FILE = "model_config.yaml"

# key: NeMo's default, then the supported values
PREPROCESSOR_FIXED: dict[str, tuple[Any, ...]] = {
    "window": ("hann", "hann"),
    "lowfreq": (0, 0, 0.0),
    "log": (True, True),
    "log_zero_guard_type": ("add", "add"),
    "frame_splicing": (1, 1),
    "exact_pad": (False, False),
    "mag_power": (2.0, 2.0, 2),
    "mel_norm": ("slaney", "slaney"),
}
PREPROCESSOR_SKIPPED = (
    *("dither", "rng", "nb_augmentation_prob", "nb_max_freq"),  # in training only
    *("pad_to", "pad_value"),  # padding is masked
    *("use_torchaudio", "stft_exact_pad", "stft_conv"),  # without effect since NeMo 1.23
    "_target_",
)
ENCODER_FIXED: dict[str, tuple[Any, ...]] = {
    "causal_downsampling": (False, True),
    "subsampling": ("striding", "dw_striding"),
    "subsampling_factor": (4, 8),
    "reduction": (None, None),
    "reduction_factor": (1, 1),
    "self_attention_model": ("rel_pos", "rel_pos"),
    "att_chunk_context_size": (None, None),
    "att_context_style": ("regular", "chunked_limited"),
    "untie_biases": (True, True),
    "conv_norm_type": ("batch_norm", "layer_norm"),
    "conv_context_style": ("regular", "regular"),
    "conv_dual_mode": (False, False),
    "global_tokens": (0, 0),
}
ENCODER_SKIPPED = (
    *("dropout_pre_encoder", "dropout_emb", "att_context_probs"),  # in training only
    *("stochastic_depth_drop_prob", "stochastic_depth_mode", "stochastic_depth_start_layer"),
    *("global_tokens_spacing", "global_attn_separate"),  # without effect, as there are no global tokens
    "reduction_position",  # without effect, as there is no reduction
    "pos_emb_max_len",  # initial size of a buffer
    *("subsampling_conv_chunking_factor", "use_pytorch_sdpa", "use_pytorch_sdpa_backends"),  # implementation
    "sync_max_audio_length",
    "_target_",
)
DECODER_FIXED: dict[str, tuple[Any, ...]] = {"normalization_mode": (None, None), "blank_as_pad": (True, True)}
PREDNET_SKIPPED = ("t_max", "forget_gate_bias", "weights_init_scale", "hidden_hidden_bias_scale")  # initial values
JOINT_FIXED: dict[str, tuple[Any, ...]] = {"num_extra_outputs": (0, 0)}
JOINT_SKIPPED = (
    *("preserve_memory", "fuse_loss_wer", "fused_batch_size", "experimental_fuse_loss_wer", "masking_prob"),
    "log_softmax",  # does not change the argmax over labels
    "_target_",
)
# sections and keys beside the model's parts: data, losses, optimizer, logs
TOP_SKIPPED = (
    *("train_ds", "validation_ds", "test_ds", "spec_augment", "optim", "loss", "interctc", "aux_ctc", "trainer"),
    *("exp_manager", "name", "target", "nemo_version", "model_defaults", "tokenizer", "labels", "hydra"),
    *("compute_eval_loss", "log_prediction", "skip_nan_grad", "use_cer", "save_pred_to_file", "rnnt_reduction"),
    *("ctc_reduction", "variational_noise", "freeze_updates", "optim_param_groups", "normalize_text", "use_lhotse"),
    *("normalize_encoder_norm", "normalize_decoder_norm", "normalize_joint_norm", "normalize_joint_txu"),
    *("init_from_nemo_model", "init_from_pretrained_model", "init_from_ptl_ckpt", "calculate_eou_metrics"),
    *("token_init_method", "token_init_weight_value", "token_init_bias_value", "async_streaming", "num_workers"),
    *("memory_profile", "nsys_profile", "chakra_profile", "dump_debug_info", "dump_debug_info_to_file"),
    *("freeze_encoder", "char_labels", "adapters", "nemo_file_path"),
    *("do_training", "do_testing", "init_strategy", "model_type", "streaming_mode", "restore_timestamps_model"),
)
LOG_GUARDS = {"tiny": 2.0**-126, "eps": 2.0**-23}  # NeMo's names for numbers of float32
NO_NORMALIZATION = ("NA", "none", "None", "", None, False)  # for NeMo also any text that names no normalization


def parse(data: bytes) -> dict[str, Any]:
    """Parses a model_config.yaml. Raises ConvertError if it is not a YAML mapping."""
    settings = read_yaml(data, FILE)
    if not isinstance(settings, dict):
        raise ConvertError(f"{FILE} must be a mapping, not {short(settings)}")
    return settings


def refuse_other_kinds(settings: Mapping[str, Any]) -> None:
    """Raises ConvertError if the settings are of a kind of model that nemojax does not run; the message names it."""
    if kinds := other_kinds(settings):
        raise ConvertError(
            f"{FILE} is not of a cache-aware streaming transducer, the one kind that nemojax runs: {listed(kinds)}"
        )


def to_config(settings: Mapping[str, Any], pieces: int, skipped: Container[str] = ()) -> ModelConfig:
    """Converts a parsed model_config.yaml to our settings; see `read`."""
    return read(settings, pieces, skipped).config


def read(settings: Mapping[str, Any], pieces: int, skipped: Container[str] = ()) -> Settings:
    """Converts a parsed model_config.yaml to our settings; returns also notes on what they leave out.

    Args:
      pieces: number of the tokenizer's pieces, from which NeMo derives the size of the output layer.
      skipped: unknown settings, by full name, that the user knows to have no effect on the output.

    Raises:
      ConvertError: says what kind of model it is if it is of another kind; else names every setting that is missing,
        unknown, or has an unsupported value.
    """
    refuse_other_kinds(settings)
    top = Section(settings)
    features = _features(top.section("preprocessor"), skipped)
    encoder = _encoder(top.section("encoder"), features, skipped)
    prediction = _prediction(top.section("decoder"), skipped)
    joint = _joint(top.section("joint"), encoder, prediction, skipped)
    max_symbols = decoding.max_symbols(top.section("decoding", optional=True), skipped)
    _tokenizer(top.section("tokenizer", optional=True), skipped)
    _check_top(top, features.sample_rate_hz, skipped)
    _note_vocabulary(top, pieces)
    top.check(FILE)
    try:
        return Settings(ModelConfig(features, encoder, prediction, joint, pieces, max_symbols), top.all_notes())
    except ConfigError as error:
        raise ConvertError(f"{FILE}: {error}") from None


def tokenizer_member(settings: Mapping[str, Any]) -> str:
    """Returns the name of the SentencePiece model in the archive.

    Raises:
      ConvertError: the settings name no tokenizer, or one of another type.
    """
    section = Section(settings).section("tokenizer")
    path = _tokenizer(section)
    section.check(FILE)
    return path.removeprefix("nemo:").rpartition("/")[2]


def _tokenizer(section: Section, skipped: Container[str] = ()) -> str:
    """Returns the path of the SentencePiece model."""
    kind = section.values.get("type")
    section.require("type", isinstance(kind, str) and kind.lower() == "bpe", "only bpe, SentencePiece")
    section.only("special_tokens", [None, {}, []], None)
    section.only("custom_tokenizer", [None], None)
    section.skip(["type", "dir", "vocab_path", "spe_tokenizer_vocab", "hf_kwargs", "update_tokenizer"])
    path: str = section.take("model_path", str)
    section.ignore_rest(skipped)
    return path


def _close(
    section: Section, fixed: Mapping[str, tuple[Any, ...]], without_effect: tuple[str, ...], skipped: Container[str]
) -> None:
    """Checks the settings of a section that have fixed values, and that no other setting is left."""
    for key, (default, *allowed) in fixed.items():
        section.only(key, allowed, default)
    section.skip(without_effect)
    section.close(skipped)


def _check_class(section: Section, expected: str, *alike: str) -> None:
    """Adds a problem unless a section is for the expected class of NeMo, or one that computes alike."""
    name = section.values.get("_target_", expected)
    if not isinstance(name, str) or name.rpartition(".")[2] not in (expected, *alike):
        section.problems.append(f"{section.where}_target_: {short(name)} is not supported, only {expected}")


def _features(section: Section, skipped: Container[str]) -> FeatureConfig:
    """Reads the preprocessor's settings."""
    _check_class(section, "AudioToMelSpectrogramPreprocessor")
    rate_hz = section.take("sample_rate", int, 16_000)
    samples = {}
    for what, default_s in (("size", 0.02), ("stride", 0.01)):
        seconds, count = f"window_{what}", f"n_window_{what}"
        if section.values.get(count) is None:
            section.skip([count])
            samples[what] = int(section.take(seconds, float, default_s) * rate_hz)
            section.require(seconds, samples[what] <= rate_hz, "it is longer than a second")
        else:
            section.only(seconds, [None], default_s)
            samples[what] = section.take(count, int)
    fft = 1 << max(0, samples["size"] - 1).bit_length()  # NeMo's default: the next power of 2
    if section.values.get("n_fft") is not None:
        fft = section.take("n_fft", int)
    section.skip(["n_fft", "preemph"])
    preemphasis = section.take("preemph", float, 0.97) if section.values.get("preemph", 0.97) is not None else 0.0
    section.only("highfreq", [None, 0, rate_hz // 2, rate_hz / 2], None)
    normalize = section.values.get("normalize")
    if not any(type(normalize) is type(one) and normalize == one for one in NO_NORMALIZATION):
        section.require("normalize", isinstance(normalize, str), "only NA, for no normalization")
        section.leave_out("normalize", "it names no normalization, also for NeMo")
    section.skip(["normalize"])
    config = FeatureConfig(
        sample_rate_hz=rate_hz,
        window_samples=samples["size"],
        hop_samples=samples["stride"],
        fft_samples=fft,
        mel_bins=section.take("features", int, 64),
        preemphasis=preemphasis,
        log_guard=_log_guard(section),
    )
    size = config.mel_bins * (config.fft_samples // 2 + 1)
    section.require("features", size <= MAX_FILTER_VALUES, "with n_fft it gives too many mel filters")
    _close(section, PREPROCESSOR_FIXED, PREPROCESSOR_SKIPPED, skipped)
    return config


def _log_guard(section: Section) -> float:
    """Returns what is added to energies before the logarithm: a number, or a name of one of float32."""
    value = section.values.get("log_zero_guard_value")
    if isinstance(value, str) and value in LOG_GUARDS:
        section.skip(["log_zero_guard_value"])
        return LOG_GUARDS[value]
    guard: float = section.take("log_zero_guard_value", float, 2.0**-24)
    return guard


def _encoder(section: Section, features: FeatureConfig, skipped: Container[str]) -> EncoderConfig:
    """Reads the encoder's settings."""
    _check_class(section, "ConformerEncoder", "ConformerEncoderAdapter")  # an encoder that adapters can be added to
    width, kernel = section.take("d_model", int), section.take("conv_kernel_size", int, 31)
    section.require("feat_in", section.take("feat_in", int) == features.mel_bins, "preprocessor.features differs")
    section.only("feat_out", [-1, 0, None, width], -1)
    section.only("conv_context_size", ["causal", [kernel - 1, 0]], None)
    channels = section.take("subsampling_conv_channels", int, -1)
    left, lookaheads = _contexts(section)
    config = EncoderConfig(
        layers=section.take("n_layers", int),
        width=width,
        heads=section.take("n_heads", int, 4),
        feedforward_width=width * section.take("ff_expansion_factor", int, 4),
        subsampling_channels=width if channels == -1 else channels,
        convolution_kernel=kernel,
        left_context_frames=left,
        lookaheads=lookaheads,
        use_bias=section.take("use_bias", bool, True),
        scale_input=section.take("xscaling", bool, True),
        dropout=section.take("dropout", float, 0.1),
        attention_dropout=section.take("dropout_att", float, 0.0),
    )
    section.require("n_layers", config.layers <= MAX_LAYERS, f"at most {MAX_LAYERS}")
    _close(section, ENCODER_FIXED, ENCODER_SKIPPED, skipped)
    return config


def _contexts(section: Section) -> tuple[int, tuple[int, ...]]:
    """Returns the left context and the look-aheads of att_context_size, one pair or a list of pairs."""
    sizes = section.take("att_context_size", list, [-1, -1])
    pairs = [sizes] if sizes and isinstance(sizes[0], int) else sizes
    if not pairs or not all(isinstance(p, list) and len(p) == 2 and all(type(n) is int for n in p) for p in pairs):
        section.problems.append(f"{section.where}att_context_size: {short(sizes)} is not a pair or a list of pairs")
        return 1, (0,)
    lefts, lookaheads = {left for left, _ in pairs}, tuple(right for _, right in pairs)
    one_left = len(lefts) == 1 and 0 < min(lefts) <= MAX_NUMBER and min(lookaheads) >= 0
    section.require("att_context_size", one_left, "only limited contexts, with the same left context in all")
    if len(set(lookaheads)) != len(lookaheads):
        section.notes.append(f"{section.where}att_context_size: {short(sizes)} has a look-ahead twice; once is enough")
    return lefts.pop(), tuple(dict.fromkeys(lookaheads))


def _prediction(section: Section, skipped: Container[str]) -> PredictionConfig:
    """Reads the prediction network's settings."""
    _check_class(section, "RNNTDecoder")
    prednet = section.section("prednet")
    width = prednet.take("pred_hidden", int)
    prednet.only("rnn_hidden_size", [-1, width], -1)
    config = PredictionConfig(width, prednet.take("pred_rnn_layers", int), prednet.take("dropout", float, 0.0))
    prednet.require("pred_rnn_layers", config.layers <= MAX_LAYERS, f"at most {MAX_LAYERS}")
    _close(prednet, {}, PREDNET_SKIPPED, skipped)
    _close(section, DECODER_FIXED, ("random_state_sampling", "vocab_size", "_target_"), skipped)
    return config


def _joint(
    section: Section, encoder: EncoderConfig, prediction: PredictionConfig, skipped: Container[str]
) -> JointConfig:
    """Reads the joint network's settings."""
    _check_class(section, "RNNTJoint", "SampledRNNTJoint")  # which samples labels for its loss alone
    jointnet = section.section("jointnet")
    jointnet.only("activation", ["relu"], None)
    jointnet.only("encoder_hidden", [encoder.width], encoder.width)
    jointnet.only("pred_hidden", [prediction.width], prediction.width)
    config = JointConfig(jointnet.take("joint_hidden", int), jointnet.take("dropout", float, 0.0))
    jointnet.close(skipped)
    section.skip(["num_classes", "vocabulary", "n_samples"])
    _close(section, JOINT_FIXED, JOINT_SKIPPED, skipped)
    return config


def _check_top(top: Section, rate_hz: int, skipped: Container[str]) -> None:
    """Checks the settings beside the sections of the model's parts."""
    target = top.values.get("target", TRANSDUCERS[0])
    if (not isinstance(target, str) or target.rpartition(".")[2] not in TRANSDUCERS) and "target" not in skipped:
        top.problems.append(
            f"target: {as_written(target)} is a class that nemojax does not know, other than {', '.join(TRANSDUCERS)} "
            "(--skip-setting target ignores it)"
        )
    rate = top.take("sample_rate", int, rate_hz)
    if rate not in (0, rate_hz):  # 0 if it is no number, which is a problem already
        top.problems.append(f"sample_rate: {rate} differs from the preprocessor's")
    top.skip(TOP_SKIPPED)
    top.ignore_rest(skipped)


def _note_vocabulary(top: Section, pieces: int) -> None:
    """Adds a note on settings that give another number of pieces than the tokenizer has, which NeMo ignores too."""
    decoder, joint = (top.values.get(key) for key in ("decoder", "joint"))
    settings = {"labels": top.values.get("labels")}
    if isinstance(decoder, Mapping):
        settings["decoder.vocab_size"] = decoder.get("vocab_size")
    if isinstance(joint, Mapping):
        settings |= {"joint.num_classes": joint.get("num_classes"), "joint.vocabulary": joint.get("vocabulary")}
    counts = {name: len(value) if isinstance(value, list) else value for name, value in settings.items()}
    # with null, -1 or an empty list, NeMo takes the size from the tokenizer without a contradiction
    other = [name for name, count in counts.items() if type(count) is int and count not in (-1, 0, pieces)]
    if other:
        top.notes.append(f"{', '.join(other)}: of another vocabulary than the tokenizer's {pieces} pieces; left out")
