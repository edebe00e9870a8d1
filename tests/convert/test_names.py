from functools import lru_cache

import numpy as np
import pytest

from convert import names
from nemojax.config import PRESETS
from nemojax.model.parameters import abstract_model, named_parameters
from tests.convert.samples import CONFIG, FAMILY, arrays


@lru_cache
def parameters(config):
    return named_parameters(abstract_model(config))


@pytest.mark.parametrize("form", ["nemo", "huggingface"])
@pytest.mark.parametrize("config", [CONFIG, FAMILY])
def test_every_parameter_has_a_name_of_its_own(config, form):
    ours = parameters(config)
    found = {names.name_in(form, name)[0] for name in ours}
    assert len(found) == len(ours) and not any("#" in name for name in found)


# our name, NeMo's, Hugging Face's, and the shape in torch's modules, in the release
RELEASED = [
    ("encoder.subsampling.conv_in.kernel", "encoder.pre_encode.conv.0.weight",
     "encoder.subsampling.conv_in.weight", (256, 1, 3, 3)),
    ("encoder.subsampling.depthwise.1.kernel", "encoder.pre_encode.conv.5.weight",
     "encoder.subsampling.layers.1.depthwise_conv.weight", (256, 1, 3, 3)),
    ("encoder.subsampling.pointwise.0.kernel", "encoder.pre_encode.conv.3.weight",
     "encoder.subsampling.layers.0.pointwise_conv.weight", (256, 256, 1, 1)),
    ("encoder.subsampling.linear.kernel", "encoder.pre_encode.out.weight",
     "encoder.subsampling.linear.weight", (1024, 4352)),
    ("encoder.blocks.23.attention.position.kernel", "encoder.layers.23.self_attn.linear_pos.weight",
     "encoder.layers.23.self_attn.relative_k_proj.weight", (1024, 1024)),
    ("encoder.blocks.0.attention.content_bias", "encoder.layers.0.self_attn.pos_bias_u",
     "encoder.layers.0.self_attn.bias_u", (8, 128)),
    ("encoder.blocks.10.convolution.pointwise1.kernel", "encoder.layers.10.conv.pointwise_conv1.weight",
     "encoder.layers.10.conv.pointwise_conv1.weight", (2048, 1024, 1)),
    ("encoder.blocks.1.convolution.depthwise.kernel", "encoder.layers.1.conv.depthwise_conv.weight",
     "encoder.layers.1.conv.depthwise_conv.weight", (1024, 1, 9)),
    ("encoder.blocks.1.convolution.norm.scale", "encoder.layers.1.conv.batch_norm.weight",
     "encoder.layers.1.conv.norm.weight", (1024,)),
    ("encoder.blocks.2.feedforward2.linear1.kernel", "encoder.layers.2.feed_forward2.linear1.weight",
     "encoder.layers.2.feed_forward2.linear1.weight", (4096, 1024)),
    ("prediction.embedding", "decoder.prediction.embed.weight", "decoder.embedding.weight", (1025, 640)),
    ("prediction.lstm.1.input_kernel", "decoder.prediction.dec_rnn.lstm.weight_ih_l1",
     "decoder.lstm.weight_ih_l1", (2560, 640)),
    ("prediction.lstm.0.hidden_bias", "decoder.prediction.dec_rnn.lstm.bias_hh_l0",
     "decoder.lstm.bias_hh_l0", (2560,)),
    ("joint.encoder.kernel", "joint.enc.weight", "encoder_projector.weight", (640, 1024)),
    ("joint.prediction.bias", "joint.pred.bias", "decoder.decoder_projector.bias", (640,)),
    ("joint.output.kernel", "joint.joint_net.2.weight", "joint.head.weight", (1025, 640)),
]  # fmt: skip


# the parts that RELEASED leaves out of one block and of the rest: our name, NeMo's, Hugging Face's, and the weight's
# shape in the release
SQUARE, WIDE = (1024, 1024), (4096, 1024)
OTHERS = [
    (
        "encoder.subsampling.depthwise.0",
        "encoder.pre_encode.conv.2",
        "encoder.subsampling.layers.0.depthwise_conv",
        (256, 1, 3, 3),
    ),
    (
        "encoder.subsampling.pointwise.1",
        "encoder.pre_encode.conv.6",
        "encoder.subsampling.layers.1.pointwise_conv",
        (256, 256, 1, 1),
    ),
    *(
        (f"encoder.blocks.7.{ours}", f"encoder.layers.7.{nemo}", f"encoder.layers.7.{huggingface}", shape)
        for ours, nemo, huggingface, shape in [
            ("norm_feedforward1", "norm_feed_forward1", "norm_feed_forward1", None),
            ("feedforward1.linear1", "feed_forward1.linear1", "feed_forward1.linear1", WIDE),
            ("feedforward1.linear2", "feed_forward1.linear2", "feed_forward1.linear2", WIDE[::-1]),
            ("norm_attention", "norm_self_att", "norm_self_att", None),
            ("attention.query", "self_attn.linear_q", "self_attn.q_proj", SQUARE),
            ("attention.key", "self_attn.linear_k", "self_attn.k_proj", SQUARE),
            ("attention.value", "self_attn.linear_v", "self_attn.v_proj", SQUARE),
            ("attention.output", "self_attn.linear_out", "self_attn.o_proj", SQUARE),
            ("norm_convolution", "norm_conv", "norm_conv", None),
            ("convolution.pointwise2", "conv.pointwise_conv2", "conv.pointwise_conv2", (*SQUARE, 1)),
            ("norm_feedforward2", "norm_feed_forward2", "norm_feed_forward2", None),
            ("feedforward2.linear2", "feed_forward2.linear2", "feed_forward2.linear2", WIDE[::-1]),
            ("norm_out", "norm_out", "norm_out", None),
        ]
    ),
]
OTHER_NAMES = {
    **{(f"{ours}.bias", form): f"{theirs[form]}.bias" for ours, *theirs, _ in OTHERS for form in (0, 1)},
    ("encoder.blocks.7.attention.position_bias", 0): "encoder.layers.7.self_attn.pos_bias_v",
    ("encoder.blocks.7.attention.position_bias", 1): "encoder.layers.7.self_attn.bias_v",
    ("prediction.lstm.1.hidden_kernel", 0): "decoder.prediction.dec_rnn.lstm.weight_hh_l1",
    ("prediction.lstm.1.input_bias", 1): "decoder.lstm.bias_ih_l1",
}


def test_names_of_all_other_parts():
    forms: tuple[names.Form, ...] = ("nemo", "huggingface")
    assert {(ours, form): names.name_in(forms[form], ours)[0] for ours, form in OTHER_NAMES} == OTHER_NAMES
    leaves = parameters(PRESETS["0.6b"])
    for ours, nemo, huggingface, shape in OTHERS:
        kernel = f"{ours}.scale" if shape is None else f"{ours}.kernel"
        for form, theirs in zip(forms, (nemo, huggingface), strict=True):
            name, layout = names.name_in(form, kernel)
            assert name == f"{theirs}.weight" and names.their_shape(leaves[kernel].shape, layout) == (shape or (1024,))


def test_names_and_shapes_of_the_release():
    leaves = parameters(PRESETS["0.6b"])
    assert len(leaves) == 651
    for form in ("nemo", "huggingface"):
        assert len({names.name_in(form, ours)[0] for ours in leaves}) == 651
    for ours, nemo, huggingface, shape in RELEASED:
        for form, expected in (("nemo", nemo), ("huggingface", huggingface)):
            name, layout = names.name_in(form, ours)
            assert name == expected and names.their_shape(leaves[ours].shape, layout) == shape


@pytest.mark.parametrize(
    "form, dropout, expected",
    [("nemo", True, "joint.joint_net.2.bias"), ("nemo", False, "joint.joint_net.1.bias")]
    + [("huggingface", dropout, "joint.head.bias") for dropout in (True, False)],
)
def test_nemo_has_no_layer_for_a_dropout_of_zero(form, dropout, expected):
    assert names.name_in(form, "joint.output.bias", dropout)[0] == expected
    assert names.name_in(form, "joint.encoder.bias", dropout) == names.name_in(form, "joint.encoder.bias")


@pytest.mark.parametrize("config", [CONFIG, FAMILY])
def test_layouts_are_inverses(config):
    for ours, array in arrays(config).items():
        _, layout = names.name_in("nemo", ours)
        np.testing.assert_array_equal(layout.to_ours(np.ascontiguousarray(layout.to_theirs(array))), array)


def test_layouts_by_index():
    """Compares single elements with the definition of each of torch's layers."""
    rng = np.random.default_rng(0)
    pointwise, depthwise = rng.normal(size=(5, 3, 1)), rng.normal(size=(4, 1, 7))
    assert names.POINTWISE_1D.to_ours(pointwise)[2, 4] == pointwise[4, 2, 0]
    assert names.DEPTHWISE_1D.to_ours(depthwise)[6, 3] == depthwise[3, 0, 6]
    image, mixing = rng.normal(size=(6, 1, 3, 2)), rng.normal(size=(5, 4, 1, 1))
    assert names.CONVOLUTION_2D.to_ours(image)[2, 1, 0, 5] == image[5, 0, 2, 1]
    assert names.POINTWISE_2D.to_ours(mixing)[3, 4] == mixing[4, 3, 0, 0]


def test_unknown_parameters():
    for name in ("encoder.blocks.0.attention.gate", "encoder.extra.bias", "joint"):
        with pytest.raises(KeyError):
            names.name_in("nemo", name)
