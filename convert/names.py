"""One table of parameters: our name, NeMo's, Hugging Face's, and the layout of the tensor in each.

NeMo and Hugging Face both use torch's layout: outputs first. A rule names one part of the model in all three forms;
the kind of part determines its parameters. Conversion in both directions, and the check that every tensor is matched,
follow from this table and the names of our parameters.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

Form = Literal["nemo", "huggingface"]


class Layout(NamedTuple):
    """Functions between our layout of a tensor and theirs; both return views."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda w: w, lambda w: w)
TRANSPOSED = Layout(np.transpose, np.transpose)  # [out, in]
POINTWISE_1D = Layout(lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None])  # [out, in, 1]
POINTWISE_2D = Layout(lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])  # [out, in, 1, 1]
DEPTHWISE_1D = Layout(lambda w: w[:, 0, :].T, lambda w: w.T[:, None, :])  # [channel, 1, time] to [time, channel]
# [channel, 1, time, frequency] to [time, frequency, 1, channel]
CONVOLUTION_2D = Layout(lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))

# parameters of a part: suffix of our name -> suffix of theirs, and the layout
Leaves = Mapping[str, tuple[str, Layout]]


def _kernel(layout: Layout) -> Leaves:
    return {".kernel": (".weight", layout), ".bias": (".bias", SAME)}


ITSELF: Leaves = {"": ("", SAME)}
NORM: Leaves = {".scale": (".weight", SAME), ".bias": (".bias", SAME)}
LINEAR = _kernel(TRANSPOSED)


class Rule(NamedTuple):
    ours: str  # "#" is the number of a block or layer
    nemo: str
    huggingface: str
    leaves: Leaves


def _block(ours: str, nemo: str, huggingface: str | None = None, leaves: Leaves = LINEAR) -> Rule:
    """Returns the rule for a part of every Conformer block."""
    theirs = f"encoder.layers.#.{nemo if huggingface is None else huggingface}"
    return Rule(f"encoder.blocks.#.{ours}", f"encoder.layers.#.{nemo}", theirs, leaves)


def _subsampling(ours: str, nemo: str, huggingface: str, leaves: Leaves) -> Rule:
    """Returns the rule for a part of the subsampling."""
    prefix = "encoder.subsampling"
    return Rule(f"{prefix}.{ours}", f"encoder.pre_encode.{nemo}", f"{prefix}.{huggingface}", leaves)


_LSTM = {
    ".input_kernel": ("weight_ih_l#", TRANSPOSED),
    ".hidden_kernel": ("weight_hh_l#", TRANSPOSED),
    ".input_bias": ("bias_ih_l#", SAME),
    ".hidden_bias": ("bias_hh_l#", SAME),
}

RULES = (
    _subsampling("conv_in", "conv.0", "conv_in", _kernel(CONVOLUTION_2D)),
    _subsampling("depthwise.0", "conv.2", "layers.0.depthwise_conv", _kernel(CONVOLUTION_2D)),
    _subsampling("pointwise.0", "conv.3", "layers.0.pointwise_conv", _kernel(POINTWISE_2D)),
    _subsampling("depthwise.1", "conv.5", "layers.1.depthwise_conv", _kernel(CONVOLUTION_2D)),
    _subsampling("pointwise.1", "conv.6", "layers.1.pointwise_conv", _kernel(POINTWISE_2D)),
    _subsampling("linear", "out", "linear", LINEAR),
    _block("norm_feedforward1", "norm_feed_forward1", leaves=NORM),
    _block("feedforward1.linear1", "feed_forward1.linear1"),
    _block("feedforward1.linear2", "feed_forward1.linear2"),
    _block("norm_attention", "norm_self_att", leaves=NORM),
    _block("attention.query", "self_attn.linear_q", "self_attn.q_proj"),
    _block("attention.key", "self_attn.linear_k", "self_attn.k_proj"),
    _block("attention.value", "self_attn.linear_v", "self_attn.v_proj"),
    _block("attention.output", "self_attn.linear_out", "self_attn.o_proj"),
    _block("attention.position", "self_attn.linear_pos", "self_attn.relative_k_proj"),
    _block("attention.content_bias", "self_attn.pos_bias_u", "self_attn.bias_u", ITSELF),
    _block("attention.position_bias", "self_attn.pos_bias_v", "self_attn.bias_v", ITSELF),
    _block("norm_convolution", "norm_conv", leaves=NORM),
    _block("convolution.pointwise1", "conv.pointwise_conv1", leaves=_kernel(POINTWISE_1D)),
    _block("convolution.depthwise", "conv.depthwise_conv", leaves=_kernel(DEPTHWISE_1D)),
    _block("convolution.norm", "conv.batch_norm", "conv.norm", NORM),  # a layer norm, though NeMo names it a batch norm
    _block("convolution.pointwise2", "conv.pointwise_conv2", leaves=_kernel(POINTWISE_1D)),
    _block("norm_feedforward2", "norm_feed_forward2", leaves=NORM),
    _block("feedforward2.linear1", "feed_forward2.linear1"),
    _block("feedforward2.linear2", "feed_forward2.linear2"),
    _block("norm_out", "norm_out", leaves=NORM),
    Rule("prediction.embedding", "decoder.prediction.embed.weight", "decoder.embedding.weight", ITSELF),
    Rule("prediction.lstm.#", "decoder.prediction.dec_rnn.lstm.", "decoder.lstm.", _LSTM),
    Rule("joint.encoder", "joint.enc", "encoder_projector", LINEAR),
    Rule("joint.prediction", "joint.pred", "decoder.decoder_projector", LINEAR),
    Rule("joint.output", "joint.joint_net.2", "joint.head", LINEAR),  # after the ReLU and the dropout
)

_TABLE: dict[str, tuple[Rule, str, Layout]] = {
    rule.ours + ours: (rule, theirs, layout) for rule in RULES for ours, (theirs, layout) in rule.leaves.items()
}


def name_in(form: Form, ours: str, joint_dropout: bool = True) -> tuple[str, Layout]:
    """Returns the name of one of our parameters in another form, and its layout there.

    Args:
      joint_dropout: whether the joint network has dropout. Without it, NeMo's numbering has no layer for it.

    Raises:
      KeyError: the parameter is not in the table.
    """
    if form == "nemo" and ours.startswith("joint.output.") and not joint_dropout:
        name, layout = name_in(form, ours)
        return name.replace("joint_net.2", "joint_net.1"), layout
    if ours in _TABLE:  # a name with literal numbers, as in the subsampling
        rule, suffix, layout = _TABLE[ours]
        return getattr(rule, form) + suffix, layout
    number = re.search(r"(?<=\.)\d+(?=\.)", ours)
    if number is None:
        raise KeyError(ours)
    rule, suffix, layout = _TABLE[f"{ours[: number.start()]}#{ours[number.end() :]}"]
    return (getattr(rule, form) + suffix).replace("#", number[0]), layout


def their_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Returns the shape in their layout of a parameter whose shape in ours is `shape`."""
    return layout.to_theirs(np.broadcast_to(np.zeros((), bool), shape)).shape
