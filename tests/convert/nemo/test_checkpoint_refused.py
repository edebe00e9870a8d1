"""Archives that are refused, and what the message names."""

import base64
import zlib

import numpy as np
import pytest

from convert import nemo
from convert.errors import ConvertError
from convert.nemo.checkpoint import FILTERS, WINDOW, _member, preprocessor_constants
from tests.convert.nemo.test_checkpoint import save
from tests.convert.samples import (
    CONFIG,
    converted,
    file_of,
    nemo_members,
    settings,
    theirs,
    tokenizer,
)
from tests.helpers.messages import ending, is_message, whole


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t.pop("joint.enc.bias"), "the tensors do not fit the settings: joint.enc.bias is missing"),
        (
            lambda t: t.update({"joint.x": np.ones(1, np.float32)}),
            "the tensors do not fit the settings: 'joint.x' is not a tensor of this model",
        ),
        (
            lambda t: t.update({"joint.enc.bias": np.ones(3, np.float32)}),
            "the tensors do not fit the settings: joint.enc.bias has the shape [3], the settings require [24]",
        ),
        (
            lambda t: t.update({"joint.enc.bias": np.ones((1, 24), np.float32)}),
            "the tensors do not fit the settings: joint.enc.bias has the shape [1, 24], the settings require [24]",
        ),
        (
            lambda t: t.update({"joint.enc.bias": np.ones(24, np.int32)}),
            "the tensors do not fit the settings: joint.enc.bias is int32, not float32, float16 or bfloat16",
        ),
        (lambda t: t.clear(), "the settings name 4 layers, but there are only 0 tensors"),
        (
            lambda t: [t.pop(name) for name in list(t)[:50]],
            (
                "the tensors do not fit the settings: encoder.layers.0.self_attn.pos_bias_u is missing; "
                "encoder.layers.0.self_attn.linear_k.weight is missing; "
                "encoder.layers.0.self_attn.linear_out.weight is missing; "
                "encoder.layers.0.self_attn.linear_pos.weight is missing; "
                "encoder.layers.0.self_attn.pos_bias_v is missing; "
                "encoder.layers.0.self_attn.linear_q.weight is missing; "
                "encoder.layers.0.self_attn.linear_v.weight is missing; "
                "encoder.layers.0.conv.depthwise_conv.weight is missing; and 42 more"
            ),
        ),
        (
            lambda t: t.update({"decoder.prediction.embed.weight": np.float32(1)}),
            (
                "the tokenizer has 40 pieces, the weights have 0 and blank; the archive holds a "
                "tokenizer of another model"
            ),
        ),
        (
            lambda t: t.update({"a": t.pop("joint.enc.bias"), "joint.pred.bias": np.ones(2, np.float32)}),
            (
                "the tensors do not fit the settings: joint.enc.bias is missing; joint.pred.bias has the "
                "shape [2], the settings require [24]; 'a' is not a tensor of this model"
            ),
        ),
        (
            lambda t: t.update({FILTERS: preprocessor_constants(CONFIG.features)[FILTERS].astype(np.int32)}),
            "preprocessor.featurizer.fb differs from what the preprocessor's settings give; not supported",
        ),
        (
            lambda t: t.update({WINDOW: preprocessor_constants(CONFIG.features)[WINDOW].astype(np.float16) * 1.01}),
            "preprocessor.featurizer.window differs from what the preprocessor's settings give; not supported",
        ),
        (
            lambda t: t.update({"encoder.layers.0.adapter_layer.a.module.0.weight": np.ones(3, np.float32)}),
            "is a model with adapters, which nemojax does not run: 'encoder.layers.0.adapter_layer.a.module.0.weight'",
        ),
        (
            lambda t: t.update({FILTERS: np.ones((1, 128, 257), np.float32)}),
            "preprocessor.featurizer.fb differs from what the preprocessor's settings give; not supported",
        ),
        (
            lambda t: t.update({WINDOW: preprocessor_constants(CONFIG.features)[WINDOW] + np.float32(2e-6)}),
            "preprocessor.featurizer.window differs from what the preprocessor's settings give; not supported",
        ),
        (
            lambda t: t.update({WINDOW: np.ones(320, np.float32)}),
            "preprocessor.featurizer.window differs from what the preprocessor's settings give; not supported",
        ),
    ],
)
def test_tensors_that_do_not_fit(nemo_file, change, message):
    tensors = theirs(CONFIG, "nemo")
    change(tensors)
    archive = nemo_file(tensors=tensors)
    with pytest.raises(ConvertError) as caught:
        nemo.read(archive)
    assert str(caught.value) == f"{archive}: {message}"


@pytest.mark.parametrize(
    "section,key",
    [
        ("preprocessor", "features"),
        ("encoder", "n_layers"),
        ("encoder", "d_model"),
        ("encoder", "conv_kernel_size"),
        ("encoder", "ff_expansion_factor"),
        ("encoder", "subsampling_conv_channels"),
        ("decoder", "pred_rnn_layers"),
        ("decoder", "pred_hidden"),
        ("joint", "joint_hidden"),
    ],
)
@pytest.mark.parametrize("constants", [True, False])
def test_settings_of_a_model_of_any_size(nemo_file, section, key, constants):
    """No array of a claimed size is made before the size is compared with the tensors."""
    made = settings(CONFIG)
    place = made[section].get({"decoder": "prednet", "joint": "jointnet"}.get(section), made[section])
    assert key in place
    place[key] = 1 << 17
    if key == "features":
        made["encoder"]["feat_in"] = 1 << 17
    for name in ("encoder_hidden", "pred_hidden"):
        del made["joint"]["jointnet"][name]
    tensors = theirs(CONFIG, "nemo") | (preprocessor_constants(CONFIG.features) if constants else {})
    with pytest.raises(
        ConvertError,
        match=r"do not fit|too many mel filters|at most 1(28|31072)|differs from what the preprocessor's settings give",
    ):
        nemo.read(nemo_file(settings=made, tensors=tensors))


@pytest.mark.parametrize(
    "constant,message",
    [("?", "damaged constant"), (3, "damaged constant"), ("AAAA", "damaged constant"), (None, "does not fit")],
)
def test_damaged_origin(native, tmp_path, constant, message):
    if constant is None:
        constant = base64.b64encode(zlib.compress(np.ones(400, np.float32).tobytes())).decode()
    origin = {"format": "nemo", "kept": {"settings": "a: [", "constants": {WINDOW: constant}}}
    with pytest.raises(ConvertError, match=message):
        nemo.write(native(origin=origin), tmp_path / "out.nemo")
    nemo.write(native("other", origin={"format": "nemo", "kept": {"settings": "a: ["}}), tmp_path / "out.nemo")
    assert nemo.read(tmp_path / "out.nemo").config == converted(CONFIG)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(nemo_file, tmp_path, value):
    tensors = theirs(CONFIG, "nemo")
    tensors["encoder.layers.1.conv.pointwise_conv2.weight"][3, 2, 0] = value
    source = nemo.read(nemo_file(tensors=tensors))
    with pytest.raises(
        ConvertError, match=whole("the tensor encoder.layers.1.conv.pointwise_conv2.weight holds NaN or infinity")
    ):
        save(source, tmp_path / "native")
    assert [path.name for path in tmp_path.iterdir()] == ["model.nemo"]


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda m: m.pop("model_config.yaml"), "has no 'model_config.yaml'"),
        (lambda m: m.pop("0_tokenizer.model"), "has no '0_tokenizer.model'"),
        (lambda m: m.pop("model_weights.ckpt"), "must have model_weights.ckpt and no other weights, but has none"),
        (
            lambda m: m.update({"old.ckpt": b"x"}),
            "must have model_weights.ckpt and no other weights, but has 'model_weights.ckpt', 'old.ckpt'",
        ),
        (
            lambda m: m.update({"a/model_weights.ckpt": b"x"}),
            "must have model_weights.ckpt and no other weights, but has 'model_weights.ckpt', 'a/model_weights.ckpt'",
        ),
        (lambda m: m.update({"model_weights.ckpt": b"x"}), "model_weights.ckpt is not a torch checkpoint (a zip file)"),
        (
            lambda m: m.update({"0_tokenizer.model": b"x"}),
            "0_tokenizer.model is not a SentencePiece model: ",
        ),
        (
            lambda m: m.update({"0_tokenizer.model": tokenizer(41)}),
            (
                "the tokenizer has 41 pieces, the weights have 40 and blank; the archive holds a "
                "tokenizer of another model"
            ),
        ),
        (lambda m: m.update({"model_config.yaml": b"encoder: ["}), "model_config.yaml is not YAML: "),
        (lambda m: m.update({"model_config.yaml": b"tokenizer: {type: bpe, model_path: ../x}"}), "has no 'x'"),
        (
            lambda m: m.update({"model_config.yaml": b"a: " + b" " * (9 << 20)}),
            "has a 'model_config.yaml' of more than 8 MB",
        ),
    ],
)
def test_archives_that_are_not_checkpoints(nemo_file, change, message):
    made = nemo_members(CONFIG)
    change(made)
    archive = nemo_file(made)
    with pytest.raises(ConvertError) as caught:
        nemo.read(archive)
    assert is_message(caught.value, f"{archive}: {message}")


def test_a_tokenizer_of_another_size(nemo_file):
    """If the settings do not give the size, the tensors do."""
    made = settings(CONFIG)
    del made["labels"], made["decoder"]["vocab_size"], made["joint"]["num_classes"], made["joint"]["vocabulary"]
    assert nemo.read(nemo_file(settings=made)).config == converted(CONFIG)
    with pytest.raises(
        ConvertError,
        match=ending(
            ": the tokenizer has 41 pieces, the weights have 40 and blank; the archive holds a "
            "tokenizer of another model"
        ),
    ):
        nemo.read(nemo_file(settings=made, tokenizer=tokenizer(41)))


def test_members_have_a_limit():
    members = {"a": file_of(b"12345")}
    assert _member(members, "a", 5) == b"12345"
    with pytest.raises(ConvertError, match=whole("has a 'a' of more than 0 MB")):
        _member({"a": file_of(b"12345")}, "a", 4)
    with pytest.raises(ConvertError, match=whole("has no 'b'")):
        _member(members, "b", 5)
