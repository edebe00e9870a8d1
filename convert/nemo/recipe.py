"""Converts our settings to a model_config.yaml for NeMo."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from convert.errors import ConvertError
from nemojax.config import ModelConfig

MODELS = "nemo.collections.asr.models"
MODULES = "nemo.collections.asr.modules"


def to_settings(config: ModelConfig, pieces: Sequence[str], artifacts: Mapping[str, str]) -> dict[str, Any]:
    """Returns a model_config.yaml with which NeMo builds this model; settings for training have the family's values.

    Args:
      pieces: texts of the tokenizer's pieces.
      artifacts: names of the tokenizer's files in the archive, by NeMo's key ("model_path", ...).

    Raises:
      ConvertError: NeMo can't express `config`.
    """
    features, encoder = config.features, config.encoder
    expansion, rest = divmod(encoder.feedforward_width, encoder.width)
    if rest:
        raise ConvertError(f"NeMo can't express a feed-forward width that is not a multiple of {encoder.width}")
    widths = {"pred_hidden": config.prediction.width, "joint_hidden": config.joint.width}
    return {
        "sample_rate": features.sample_rate_hz,
        "compute_eval_loss": False,
        "log_prediction": True,
        "skip_nan_grad": False,
        "model_defaults": {"enc_hidden": encoder.width, **widths},
        "validation_ds": {  # NeMo's `transcribe` needs it
            "manifest_filepath": None,
            "sample_rate": features.sample_rate_hz,
            "batch_size": 16,
            "shuffle": False,
            "use_start_end_token": False,
        },
        "tokenizer": {"dir": None, "type": "bpe", **{key: f"nemo:{name}" for key, name in artifacts.items()}},
        "preprocessor": {
            "_target_": f"{MODULES}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": features.sample_rate_hz,
            "normalize": "NA",
            **_duration("size", features.window_samples, features.sample_rate_hz),
            **_duration("stride", features.hop_samples, features.sample_rate_hz),
            "window": "hann",
            "features": features.mel_bins,
            "n_fft": features.fft_samples,
            "preemph": features.preemphasis,
            "log_zero_guard_value": features.log_guard,
            "frame_splicing": 1,
            "dither": 0.00001,
            "pad_to": 0,
        },
        "spec_augment": {
            "_target_": f"{MODULES}.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 10,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": {
            "_target_": f"{MODULES}.ConformerEncoder",
            "feat_in": features.mel_bins,
            "feat_out": -1,
            "n_layers": encoder.layers,
            "d_model": encoder.width,
            "use_bias": encoder.use_bias,
            "subsampling": "dw_striding",
            "subsampling_factor": config.subsampling_factor,
            "subsampling_conv_channels": encoder.subsampling_channels,
            "causal_downsampling": True,
            "ff_expansion_factor": expansion,
            "self_attention_model": "rel_pos",
            "n_heads": encoder.heads,
            "att_context_size": [[encoder.left_context_frames, lookahead] for lookahead in encoder.lookaheads],
            "att_context_style": "chunked_limited",
            "att_context_probs": None,
            "xscaling": encoder.scale_input,
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": encoder.convolution_kernel,
            "conv_norm_type": "layer_norm",
            "conv_context_size": "causal",
            "dropout": encoder.dropout,
            "dropout_pre_encoder": encoder.dropout,
            "dropout_emb": 0.0,
            "dropout_att": encoder.attention_dropout,
        },
        "decoder": {
            "_target_": f"{MODULES}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": config.prediction.width,
                "pred_rnn_layers": config.prediction.layers,
                "t_max": None,
                "dropout": config.prediction.dropout,
            },
            "vocab_size": config.vocabulary,
        },
        "joint": {
            "_target_": f"{MODULES}.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "fused_batch_size": None,
            "jointnet": {
                "joint_hidden": config.joint.width,
                "activation": "relu",
                "dropout": config.joint.dropout,
                "encoder_hidden": encoder.width,
                "pred_hidden": config.prediction.width,
            },
            "num_classes": config.vocabulary,
            "vocabulary": list(pieces),
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": config.max_symbols_per_frame}},
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.005, "clamp": -1.0}},
        "labels": list(pieces),
        "target": f"{MODELS}.rnnt_bpe_models.EncDecRNNTBPEModel",
    }


def remove_files(decoding: Any) -> None:
    """Sets the files of a decoding section to null: language models and phrases, which our archives do not hold."""
    for key, value in decoding.items() if isinstance(decoding, dict) else ():
        if key in ("ngram_lm_model", "model_path", "key_phrases_file", "language_model"):
            decoding[key] = None
        remove_files(value)


def _duration(what: str, samples: int, rate_hz: int) -> dict[str, Any]:
    """Returns a duration in seconds, as NeMo writes it, or in samples if NeMo would round the seconds wrongly."""
    seconds = samples / rate_hz
    if int(seconds * rate_hz) == samples:
        return {f"window_{what}": seconds}
    return {f"window_{what}": None, f"n_window_{what}": samples}


def dump(settings: Mapping[str, Any]) -> bytes:
    """Writes settings as YAML."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()


class _Dumper(yaml.SafeDumper):
    """Writes plain types without aliases, and quotes strings that some YAML reader would parse as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if re.match(r"[yYnN]$|[-+.\d]", text) else None
    ),
)
