"""Converts NeMo's model_config.yaml to our settings.

The settings are those of ConformerEncoder, RNNTDecoder, RNNTJoint, AudioToMelSpectrogramPreprocessor and greedy
decoding in NeMo 3.0.0. The tables list each setting that has one supported meaning, with NeMo's default, which applies
if a file leaves the setting out.
"""

from collections.abc import Container, Mapping
from typing import Any

from convert.errors import ConvertError, short
from convert.sections import MAX_NUMBER, Section, read_yaml
from nemojax.config import EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig
from nemojax.errors import ConfigError

FILE = "model_config.yaml"

# key: NeMo's default, then the supported values
PREPROCESSOR_FIXED: dict[str, tuple[Any, ...]] = {
    "window": ("hann", "hann"),
    "normalize": ("per_feature", "NA", None),
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
DECODING_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("rnnt", "rnnt"),
    "strategy": ("greedy_batch", "greedy_batch", "greedy"),
    "temperature": (1.0, 1.0, 1),
    "durations": ([], [], None),
    "big_blank_durations": ([], [], None),
    "strip_lang_tags": (False, False),
}
DECODING_SKIPPED = (
    "beam",  # without effect, as the strategy is greedy
    *(
        "compute_hypothesis_token_set",
        "preserve_alignments",
        "tdt_include_token_duration",
        "confidence_cfg",
    ),  # results
    *("compute_timestamps", "compute_langs", "word_seperator", "segment_seperators", "segment_gap_threshold"),
    *("rnnt_timestamp_type", "fused_batch_size", "lang_tag_pattern"),
)
GREEDY_FIXED: dict[str, tuple[Any, ...]] = {
    "ngram_lm_model": (None, None),
    "enable_per_stream_biasing": (False, False),
}
GREEDY_SKIPPED = (
    *("preserve_alignments", "preserve_frame_confidence", "tdt_include_token_duration", "confidence_method_cfg"),
    *("tdt_include_duration_confidence", "compute_timestamps", "confidence_measure_cfg", "confidence_method"),
    *("loop_labels", "use_cuda_graph_decoder"),  # implementation
    "ngram_lm_alpha",  # without effect, as there is no language model
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
    *("do_training", "do_testing", "init_strategy", "model_type", "streaming_mode", "restore_timestamps_model"),
)
TARGETS = ("EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel", "EncDecRNNTBPEEOUModel")
LOSSES_OF_OTHER_MODELS = ("tdt", "tdt_pytorch", "multiblank_rnnt", "multiblank_rnnt_pytorch", "graph_w_transducer")


def parse(data: bytes) -> dict[str, Any]:
    """Parses a model_config.yaml. Raises ConvertError if it is not a YAML mapping."""
    settings = read_yaml(data, FILE)
    if not isinstance(settings, dict):
        raise ConvertError(f"{FILE} must be a mapping, not {short(settings)}")
    return settings


def to_config(settings: Mapping[str, Any], pieces: int, skipped: Container[str] = ()) -> ModelConfig:
    """Converts a parsed model_config.yaml to our settings.

    Args:
      pieces: number of the tokenizer's pieces, from which NeMo derives the size of the output layer.
      skipped: unknown settings, by full name, that the user knows to have no effect on the output.

    Raises:
      ConvertError: names every setting that is missing, unknown, or has an unsupported value.
    """
    top = Section(settings)
    features = _features(top.section("preprocessor"), skipped)
    encoder = _encoder(top.section("encoder"), features, skipped)
    prediction = _prediction(top.section("decoder"), skipped)
    joint = _joint(top.section("joint"), encoder, prediction, skipped)
    max_symbols = _decoding(top.section("decoding"), skipped)
    _check_top(top, skipped)
    _check_vocabulary(top, pieces)
    top.check(FILE)
    try:
        return ModelConfig(features, encoder, prediction, joint, pieces, max_symbols)
    except ConfigError as error:
        raise ConvertError(f"{FILE}: {error}") from None


def tokenizer_member(settings: Mapping[str, Any]) -> str:
    """Returns the name of the SentencePiece model in the archive.

    Raises:
      ConvertError: the settings name no tokenizer, or one of another type.
    """
    section = Section(settings).section("tokenizer")
    section.only("type", ["bpe"], None)
    section.skip(["dir", "vocab_path", "spe_tokenizer_vocab", "hf_kwargs"])
    section.only("special_tokens", [None], None)
    path: str = section.take("model_path", str)
    section.close()
    section.check(FILE)
    return path.removeprefix("nemo:").rpartition("/")[2]


def _close(
    section: Section, fixed: Mapping[str, tuple[Any, ...]], without_effect: tuple[str, ...], skipped: Container[str]
) -> None:
    """Checks the settings of a section that have fixed values, and that no other setting is left."""
    for key, (default, *allowed) in fixed.items():
        section.only(key, allowed, default)
    section.skip(without_effect)
    section.close(skipped)


def _check_class(section: Section, expected: str) -> None:
    """Adds a problem unless a section is for the expected class of NeMo."""
    name = section.values.get("_target_", expected)
    if not isinstance(name, str) or name.rpartition(".")[2] != expected:
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
    config = FeatureConfig(
        sample_rate_hz=rate_hz,
        window_samples=samples["size"],
        hop_samples=samples["stride"],
        fft_samples=fft,
        mel_bins=section.take("features", int, 64),
        preemphasis=preemphasis,
        log_guard=section.take("log_zero_guard_value", float, 2.0**-24),
    )
    _close(section, PREPROCESSOR_FIXED, PREPROCESSOR_SKIPPED, skipped)
    return config


def _encoder(section: Section, features: FeatureConfig, skipped: Container[str]) -> EncoderConfig:
    """Reads the encoder's settings."""
    _check_class(section, "ConformerEncoder")
    width, kernel = section.take("d_model", int), section.take("conv_kernel_size", int, 31)
    section.require("feat_in", section.take("feat_in", int) == features.mel_bins, "preprocessor.features differs")
    section.only("feat_out", [-1, 0, width], -1)
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
    section.require("att_context_size", len(set(lookaheads)) == len(lookaheads), "a look-ahead is listed twice")
    return lefts.pop(), lookaheads


def _prediction(section: Section, skipped: Container[str]) -> PredictionConfig:
    """Reads the prediction network's settings."""
    _check_class(section, "RNNTDecoder")
    prednet = section.section("prednet")
    width = prednet.take("pred_hidden", int)
    prednet.only("rnn_hidden_size", [-1, width], -1)
    config = PredictionConfig(width, prednet.take("pred_rnn_layers", int), prednet.take("dropout", float, 0.0))
    _close(prednet, {}, PREDNET_SKIPPED, skipped)
    _close(section, DECODER_FIXED, ("random_state_sampling", "vocab_size", "_target_"), skipped)
    return config


def _joint(
    section: Section, encoder: EncoderConfig, prediction: PredictionConfig, skipped: Container[str]
) -> JointConfig:
    """Reads the joint network's settings."""
    _check_class(section, "RNNTJoint")
    jointnet = section.section("jointnet")
    jointnet.only("activation", ["relu"], None)
    jointnet.only("encoder_hidden", [encoder.width], encoder.width)
    jointnet.only("pred_hidden", [prediction.width], prediction.width)
    config = JointConfig(jointnet.take("joint_hidden", int), jointnet.take("dropout", float, 0.0))
    jointnet.close(skipped)
    section.skip(["num_classes", "vocabulary"])  # see `_check_vocabulary`
    _close(section, JOINT_FIXED, JOINT_SKIPPED, skipped)
    return config


def _decoding(section: Section, skipped: Container[str]) -> int:
    """Returns the maximum number of labels per frame."""
    greedy = section.section("greedy")
    # NeMo uses the first of the two that is set; if neither is, there is no limit
    name = "max_symbols" if greedy.values.get("max_symbols") else "max_symbols_per_step"
    greedy.skip(["max_symbols", "max_symbols_per_step"])
    max_symbols: int = greedy.take(name, int)
    # without effect as long as no phrases are given
    boosting = greedy.section("boosting_tree", optional=True)
    for key in ("model_path", "key_phrases_file"):
        boosting.only(key, [None], None)
    boosting.only("key_phrases_list", [None, []], None)
    greedy.skip(["boosting_tree_alpha"])
    _close(greedy, GREEDY_FIXED, GREEDY_SKIPPED, skipped)
    _close(section, DECODING_FIXED, DECODING_SKIPPED, skipped)
    return max_symbols


def _check_top(top: Section, skipped: Container[str]) -> None:
    """Checks the settings beside the sections of the model's parts."""
    target = top.values.get("target", TARGETS[0])
    if not isinstance(target, str) or target.rpartition(".")[2] not in TARGETS:
        prompt = " (it has a prompt network after the encoder)" if "Prompt" in short(target) else ""
        top.problems.append(f"target: {short(target)} is not supported{prompt}, only {', '.join(TARGETS)}")
    defaults, loss = top.values.get("model_defaults"), top.values.get("loss")
    if isinstance(defaults, Mapping) and "num_prompts" in defaults:
        top.problems.append("model_defaults.num_prompts: a prompt network after the encoder is not supported")
    if isinstance(loss, Mapping) and loss.get("loss_name") in LOSSES_OF_OTHER_MODELS:
        top.problems.append(f"loss.loss_name: {loss['loss_name']} is not supported, only losses of plain transducers")
    preprocessor, rate = top.values.get("preprocessor"), top.take("sample_rate", int, 16_000)
    if isinstance(preprocessor, Mapping) and preprocessor.get("sample_rate", 16_000) != rate:
        top.problems.append(f"sample_rate: {rate} differs from the preprocessor's")
    top.skip(TOP_SKIPPED)
    top.close(skipped)


def _check_vocabulary(top: Section, pieces: int) -> None:
    """Adds a problem for each setting that gives the vocabulary, or its size, unless it has the tokenizer's size."""
    decoder, joint = (top.values.get(key) for key in ("decoder", "joint"))
    settings = {"labels": top.values.get("labels")}
    if isinstance(decoder, Mapping):
        settings["decoder.vocab_size"] = decoder.get("vocab_size")
    if isinstance(joint, Mapping):
        settings |= {"joint.num_classes": joint.get("num_classes"), "joint.vocabulary": joint.get("vocabulary")}
    for name, value in settings.items():
        count = len(value) if isinstance(value, list) else value
        # with null or -1, NeMo takes the size from the tokenizer
        if count is not None and count != -1 and (type(count) is not int or count != pieces):
            top.problems.append(f"{name} gives {short(count)} pieces, the tokenizer has {pieces}")
