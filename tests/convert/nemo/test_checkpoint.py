import dataclasses
import hashlib
import io
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest

from convert import nemo
from convert.nemo import torch_format, torch_pickle
from convert.nemo.archive import open_nemo
from convert.nemo.checkpoint import FILTERS, WINDOW, _settings, preprocessor_constants
from convert.pieces import pieces
from nemojax import checkpoint
from nemojax.config import FeatureConfig
from nemojax.model.features import centered_window, mel_filters
from tests.convert.samples import (
    CONFIG,
    FAMILY,
    arrays,
    converted,
    file_of,
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
    vocabulary = pieces(tokenizer(config.vocabulary))
    artifacts = {
        "tokenizer.model": tokenizer(config.vocabulary),
        "vocab.txt": "".join(f"{piece.text}\n" for piece in vocabulary).encode(),
        "tokenizer.vocab": "".join(f"{piece.text}\t{piece.score:g}\n" for piece in vocabulary).encode(),
    }
    expected = {f"{hashlib.sha256(data).hexdigest()[:32]}_{name}": data for name, data in artifacts.items()}
    found = members(tmp_path / "made.nemo")
    assert {name: data for name, data in found.items() if name in expected} == expected
    with tarfile.open(tmp_path / "made.nemo") as tar:
        infos = tar.getmembers()
    names = ["model_config.yaml", *expected, "model_weights.ckpt"]
    assert [info.name for info in infos] == [f"./{name}" for name in names]
    assert {(info.mode, info.mtime, info.uid, info.uname) for info in infos} == {(0o644, 0, 0, "")}
    section = nemo.settings.parse(found["model_config.yaml"])["tokenizer"]
    keys = zip(("model_path", "vocab_path", "spe_tokenizer_vocab"), expected, strict=True)
    assert section == {"dir": None, "type": "bpe"} | {key: f"nemo:{name}" for key, name in keys}


def test_the_constants_are_those_that_nemojax_computes_with():
    for features in (CONFIG.features, dataclasses.replace(FAMILY.features, sample_rate_hz=8000, window_samples=320)):
        constants = preprocessor_constants(features)
        start = (features.fft_samples - features.window_samples) // 2
        window = centered_window(features)[start : start + features.window_samples]
        np.testing.assert_allclose(constants[WINDOW], window, rtol=0, atol=1e-7)
        np.testing.assert_allclose(constants[FILTERS], mel_filters(features).T[None], rtol=1e-5, atol=1e-8)


def test_settings_that_came_with_the_weights_without_what_nemo_needs():
    """A new section takes the place of one that is missing; files that the archive does not hold become null."""
    texts = [piece.text for piece in pieces(tokenizer(40))]
    made = settings(CONFIG) | {"optim": {"lr": 5.0}, "validation_ds": None, "aux_ctc": {"a": 1}, "labels": ["old"]}
    made["target"] = "nemo.collections.asr.models.EncDecHybridRNNTCTCBPEModel"
    new = nemo.recipe.to_settings(CONFIG, texts, {"model_path": "new"})
    expected = made | {name: new[name] for name in ("validation_ds", "tokenizer", "target", "labels")}
    del expected["aux_ctc"]
    decoding = {"strategy": "greedy", "greedy": {"max_symbols": 10, "ngram_lm_model": "lm.nemo"}}
    without = {"strategy": "greedy", "greedy": {"max_symbols": 10, "ngram_lm_model": None}}
    for given, written in ((decoding, without), (None, new["decoding"])):
        text = nemo.recipe.dump(made | {"decoding": given, "validation_ds": None}).decode()
        origin = {"format": "nemo", "kept": {"settings": text}}
        assert _settings(CONFIG, texts, {"model_path": "new"}, origin) == expected | {"decoding": written}
        assert _settings(CONFIG, texts, {"model_path": "new"}, origin | {"format": "huggingface"}) == new
    kept = {"settings": nemo.recipe.dump(made | {"validation_ds": {"batch_size": 4}}).decode()}
    found = _settings(converted(CONFIG), texts, {}, {"format": "nemo", "kept": kept})
    assert found["validation_ds"] == {"batch_size": 4} and found["optim"] == {"lr": 5.0}


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


@pytest.mark.parametrize("bins", [80, 128])
def test_mel_filters_are_those_that_nemo_stores(bins):
    import librosa

    expected = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=bins, fmin=0, fmax=8000, norm="slaney")
    found = preprocessor_constants(FeatureConfig(mel_bins=bins))[FILTERS]
    assert found.dtype == np.float32 and np.array_equal(found, expected[None].astype(np.float32))
