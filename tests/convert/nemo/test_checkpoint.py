import base64
import dataclasses
import hashlib
import io
import tarfile
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from convert import nemo
from convert.errors import ConvertError
from convert.nemo import torch_format, torch_pickle
from convert.nemo.archive import open_nemo
from convert.nemo.checkpoint import FILTERS, WINDOW, _member, preprocessor_constants
from nemojax import checkpoint
from tests.convert.samples import (
    CONFIG,
    FAMILY,
    arrays,
    converted,
    file_of,
    nemo_members,
    rezipped,
    settings,
    theirs,
    tokenizer,
    torch_bytes,
)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def members(path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name.removeprefix("./"): tar.extractfile(info).read() for info in tar}


def save(source, directory):
    checkpoint.save(directory, source.model(), source.tokenizer, source.origin)
    return directory


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("config", [CONFIG, FAMILY])
def test_read(nemo_file, config, mode):
    path = nemo_file(config=config, mode=mode)
    source = nemo.read(path)
    assert (
        source.config == converted(config) and source.tokenizer == tokenizer(config.vocabulary) and source.notes == []
    )
    assert same(source.arrays, arrays(config))
    assert source.origin["format"] == "nemo"
    assert source.origin["files"] == {"model.nemo": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert set(source.origin["versions"]) == {"nemojax", "jax", "numpy"}


def test_a_joint_network_without_dropout(nemo_file, tmp_path):
    config = dataclasses.replace(CONFIG, joint=dataclasses.replace(CONFIG.joint, dropout=0.0))
    source = nemo.read(nemo_file(config=config))
    assert source.config == converted(config) and same(source.arrays, arrays(config))
    checkpoint.save(tmp_path / "native", source.model(), source.tokenizer, source.origin)
    nemo.write(tmp_path / "native", tmp_path / "back.nemo")
    assert "joint.joint_net.1.weight" in torch_format.read(open_nemo(tmp_path / "back.nemo")["model_weights.ckpt"])
    back = nemo.read(tmp_path / "back.nemo")
    assert back.config == converted(config) and same(back.arrays, source.arrays)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_types_are_preserved(nemo_file, dtype):
    source = nemo.read(nemo_file(tensors=theirs(CONFIG, "nemo", dtype=dtype)))
    assert same(source.arrays, arrays(CONFIG, dtype=dtype))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_models_of_another_type(nemo_file, tmp_path, dtype):
    """Window and filters are rounded like the weights; nemojax's own, in float32, take their place."""
    constants = {name: array.astype(dtype) for name, array in preprocessor_constants(CONFIG.features).items()}
    # another library's values, which differ by float32's rounding, may round to a neighbor
    constants[WINDOW] = (preprocessor_constants(CONFIG.features)[WINDOW] + np.float32(5e-7)).astype(dtype)
    source = nemo.read(nemo_file(tensors=constants | theirs(CONFIG, "nemo", dtype=dtype)))
    kept = np.float32 if dtype == np.float64 else dtype
    assert all(array.dtype == kept for array in source.arrays.values())
    assert same(source.arrays, {name: array.astype(kept) for name, array in arrays(CONFIG, dtype=dtype).items()})
    name = np.dtype(dtype).name
    own = f"the preprocessor's window and filters are rounded to {name}; nemojax computes its own in float32"
    double = "weights in float64 are rounded to float32, as NeMo does when it restores them"
    assert source.notes == [double if dtype == np.float64 else own]
    if dtype != np.float64:
        nemo.write(save(source, tmp_path / "native"), tmp_path / "back.nemo")
        found = torch_format.read(open_nemo(tmp_path / "back.nemo")["model_weights.ckpt"])
        assert np.array_equal(found[WINDOW], preprocessor_constants(CONFIG.features)[WINDOW])


def test_tensors_that_share_a_storage(nemo_file):
    """LSTM weights trained on a GPU share one."""
    tensors = theirs(CONFIG, "nemo")
    shared = [name for name in tensors if "dec_rnn" in name]
    data = torch_bytes(tensors | {"flat": np.concatenate([tensors[name].ravel() for name in shared])})
    views = torch_pickle.parse(entry(data, "data.pkl"))
    flat, offset = views.pop("flat"), 0
    description = {}
    for name, view in views.items():
        description[name] = view
        if name in shared:
            description[name] = view._replace(storage=flat.storage, offset=offset)
            offset += tensors[name].size
    source = nemo.read(nemo_file(weights=rezipped(data, {"data.pkl": described(description)})))
    assert same(source.arrays, arrays(CONFIG))


def entry(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(f"archive/{name}")


def described(views) -> bytes:
    """Returns data.pkl for views of any storage and offset."""
    number, tuple_, text = torch_pickle._number, torch_pickle._tuple, torch_pickle._text
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for name, (storage, offset, shape, strides) in views.items():
        identity = [text("storage"), b"ctorch\nFloatStorage\n", text(storage.key), text("cuda:0"), number(storage.size)]
        rebuild = [tuple_(identity) + b"Q", number(offset), tuple_(map(number, shape)), tuple_(map(number, strides))]
        arguments = tuple_([*rebuild, b"\x89", b"ccollections\nOrderedDict\n)R"])
        parts += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", arguments, b"R"]
    return b"".join([*parts, b"u."])


def test_round_trip_is_the_identity(nemo_file, tmp_path):
    """Tensors, settings for training, the tokenizer, and the preprocessor's constants as the file had them."""
    training = {"train_ds": {"manifest_filepath": "a.json", "sample_rate": 16000}, "optim": {"lr": 5.0}}
    made = settings(CONFIG) | training
    made["encoder"]["dropout_emb"] = 0.05
    constants = preprocessor_constants(CONFIG.features)
    constants[WINDOW] = constants[WINDOW] + np.float32(1e-7) * (np.arange(400) % 3 == 0)
    tensors = constants | theirs(CONFIG, "nemo")
    first = nemo_file(settings=made, tensors=tensors)
    native = save(nemo.read(first), tmp_path / "native")
    config = nemo.write(native, tmp_path / "back.nemo")
    assert config == converted(CONFIG)
    back = members(tmp_path / "back.nemo")
    name = nemo.settings.tokenizer_member(nemo.settings.parse(back["model_config.yaml"]))
    assert back[name] == tokenizer(CONFIG.vocabulary)
    found = torch_format.read(file_of(back["model_weights.ckpt"]))
    assert same({name: np.asarray(tensor) for name, tensor in found.items()}, tensors)
    again = nemo.settings.parse(back["model_config.yaml"])
    assert {k: v for k, v in again.items() if k != "tokenizer"} == {k: v for k, v in made.items() if k != "tokenizer"}
    assert same(nemo.read(tmp_path / "back.nemo").arrays, arrays(CONFIG))


@pytest.mark.parametrize("config", [CONFIG, FAMILY])
def test_write_without_an_origin(native, tmp_path, config):
    nemo.write(native(config=config), tmp_path / "made.nemo")
    source = nemo.read(tmp_path / "made.nemo")
    assert source.config == converted(config) and same(source.arrays, arrays(config))
    assert source.origin["kept"]["constants"] == {}
    listing = {name.partition("_")[2]: data for name, data in members(tmp_path / "made.nemo").items()}
    assert listing["vocab.txt"].decode().splitlines()[:2] == ["<unk>", "▁e"]
    assert listing["tokenizer.vocab"].decode().splitlines()[2] == "▁t\t-1"


def test_writing_is_deterministic(native, tmp_path):
    directory = native()
    for name in ("one.nemo", "two.nemo"):
        nemo.write(directory, tmp_path / name)
    assert (tmp_path / "one.nemo").read_bytes() == (tmp_path / "two.nemo").read_bytes()


def test_preserved_settings_of_another_model_are_not_used(nemo_file, tmp_path, native):
    preserved = nemo.read(nemo_file()).origin["kept"]
    other = {"format": "nemo", "kept": {"settings": preserved["settings"].replace("n_heads: 4", "n_heads: 2")}}
    nemo.write(native(origin=other), tmp_path / "back.nemo")
    assert nemo.read(tmp_path / "back.nemo").config == converted(CONFIG)


def test_a_fine_tuned_archive(nemo_file):
    """NeMo leaves the labels of the old tokenizer in the settings, and ignores them."""
    made = settings(CONFIG) | {"labels": ["old"] * 96, "freeze_encoder": True, "data": {"a": 1}}
    made["tokenizer"] |= {"type": "BPE", "special_tokens": {}, "update_tokenizer": False}
    made["decoding"] = {"strategy": "malsd_batch", "greedy": made["decoding"]["greedy"], "beam": {"beam_size": 4}}
    source = nemo.read(nemo_file(settings=made))
    assert source.config == converted(CONFIG) and same(source.arrays, arrays(CONFIG))
    assert source.notes == [
        "decoding.strategy: malsd_batch is left out: nemojax decodes greedily",
        "labels: of another vocabulary than the tokenizer's 40 pieces; left out",
        "settings that nemojax does not use: data",
    ]


def test_hybrid_models_lose_their_ctc_decoder(nemo_file, tmp_path):
    made = settings(CONFIG) | {
        "target": "nemo.collections.asr.models.EncDecHybridRNNTCTCBPEModel",
        "aux_ctc": {"ctc_loss_weight": 0.3, "decoder": {"num_classes": 40}},
    }
    extra = {"ctc_decoder.decoder_layers.0.weight": np.ones((41, 32, 1), np.float32)}
    source = nemo.read(nemo_file(settings=made, tensors=theirs(CONFIG, "nemo") | extra))
    assert source.notes == ["the auxiliary CTC decoder is left out: 'ctc_decoder.decoder_layers.0.weight'"]
    nemo.write(save(source, tmp_path / "native"), tmp_path / "back.nemo")
    back = nemo.settings.parse(members(tmp_path / "back.nemo")["model_config.yaml"])
    assert back["target"].endswith(".EncDecRNNTBPEModel") and "aux_ctc" not in back


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda t: t.pop("joint.enc.bias"), r"joint\.enc\.bias is missing"),
        (lambda t: t.update({"joint.x": np.ones(1, np.float32)}), r"'joint\.x' is not a tensor of this model"),
        (lambda t: t.update({"joint.enc.bias": np.ones(3, np.float32)}), r"shape \[3\], the settings require \[24\]"),
        (lambda t: t.update({"joint.enc.bias": np.ones((1, 24), np.float32)}), r"shape \[1, 24\]"),
        (lambda t: t.update({"joint.enc.bias": np.ones(24, np.int32)}), r"joint\.enc\.bias is int32"),
        (lambda t: t.clear(), "the settings name 4 layers, but there are only 0 tensors"),
        (lambda t: [t.pop(name) for name in list(t)[:50]], r"; and 42 more"),
        (
            lambda t: t.update({"a": t.pop("joint.enc.bias"), "joint.pred.bias": np.ones(2, np.float32)}),
            r"joint\.enc\.bias is missing; joint\.pred\.bias has the shape.*; 'a' is not a tensor",
        ),
        (
            lambda t: t.update({FILTERS: preprocessor_constants(CONFIG.features)[FILTERS].astype(np.int32)}),
            r"featurizer\.fb differs from what the preprocessor's settings give",
        ),
        (
            lambda t: t.update({WINDOW: preprocessor_constants(CONFIG.features)[WINDOW].astype(np.float16) * 1.01}),
            r"featurizer\.window differs from what the preprocessor's settings give",
        ),
        (
            lambda t: t.update({"encoder.layers.0.adapter_layer.a.module.0.weight": np.ones(3, np.float32)}),
            "is a model with adapters, which nemojax does not run: 'encoder.layers.0.adapter_layer",
        ),
        (
            lambda t: t.update({FILTERS: np.ones((1, 128, 257), np.float32)}),
            r"featurizer\.fb differs from what the preprocessor's settings give",
        ),
        (
            lambda t: t.update({WINDOW: np.ones(400, np.float32)}),
            r"featurizer\.window differs from what the preprocessor's settings give",
        ),
        (
            lambda t: t.update({WINDOW: np.ones(320, np.float32)}),
            r"featurizer\.window differs from what the preprocessor's settings give",
        ),
    ],
)
def test_tensors_that_do_not_fit(nemo_file, change, message):
    tensors = theirs(CONFIG, "nemo")
    change(tensors)
    with pytest.raises(ConvertError, match=message):
        nemo.read(nemo_file(tensors=tensors))


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
    with pytest.raises(ConvertError, match=r"encoder\.layers\.1\.conv\.pointwise_conv2\.weight holds NaN or infinity"):
        save(source, tmp_path / "native")
    assert [path.name for path in tmp_path.iterdir()] == ["model.nemo"]


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda m: m.pop("model_config.yaml"), r"has no 'model_config\.yaml'"),
        (lambda m: m.pop("0_tokenizer.model"), r"has no '0_tokenizer\.model'"),
        (lambda m: m.pop("model_weights.ckpt"), r"must have model_weights\.ckpt.*but has none"),
        (lambda m: m.update({"old.ckpt": b"x"}), r"no other weights, but has 'model_weights\.ckpt', 'old\.ckpt'"),
        (lambda m: m.update({"a/model_weights.ckpt": b"x"}), "no other weights"),
        (lambda m: m.update({"model_weights.ckpt": b"x"}), r"model_weights\.ckpt is not a torch checkpoint"),
        (lambda m: m.update({"0_tokenizer.model": b"x"}), r"0_tokenizer\.model is not a SentencePiece model"),
        (
            lambda m: m.update({"0_tokenizer.model": tokenizer(41)}),
            "the tokenizer has 41 pieces, the weights have 40 and blank",
        ),
        (lambda m: m.update({"model_config.yaml": b"encoder: ["}), r"model_config\.yaml is not YAML"),
        (lambda m: m.update({"model_config.yaml": b"tokenizer: {type: bpe, model_path: ../x}"}), "has no 'x'"),
        (lambda m: m.update({"model_config.yaml": b"a: " + b" " * (9 << 20)}), "of more than 8 MB"),
    ],
)
def test_archives_that_are_not_checkpoints(nemo_file, change, message):
    made = nemo_members(CONFIG)
    change(made)
    with pytest.raises(ConvertError, match=f"model.nemo: .*{message}"):
        nemo.read(nemo_file(made))


def test_a_tokenizer_of_another_size(nemo_file):
    """If the settings do not give the size, the tensors do."""
    made = settings(CONFIG)
    del made["labels"], made["decoder"]["vocab_size"], made["joint"]["num_classes"], made["joint"]["vocabulary"]
    assert nemo.read(nemo_file(settings=made)).config == converted(CONFIG)
    with pytest.raises(ConvertError, match="the tokenizer has 41 pieces, the weights have 40 and blank"):
        nemo.read(nemo_file(settings=made, tokenizer=tokenizer(41)))


def test_members_have_a_limit():
    members = {"a": file_of(b"12345")}
    assert _member(members, "a", 5) == b"12345"
    with pytest.raises(ConvertError, match="has a 'a' of more than 0 MB"):
        _member({"a": file_of(b"12345")}, "a", 4)
    with pytest.raises(ConvertError, match="has no 'b'"):
        _member(members, "b", 5)
