import hashlib

import jax
import ml_dtypes
import numpy as np
import pytest

import nemojax
from convert import names, source
from convert.errors import ConvertError
from convert.source import Tensor, in_their_layout, match_parameters, name_parameters, preserved, provenance
from nemojax import checkpoint
from nemojax.kernels import quantization
from nemojax.model.parameters import fill
from tests.convert.samples import FAMILY, SMALLEST, arrays, theirs, tokenizer
from tests.helpers.messages import ending, whole


def tensors(values: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: in_their_layout(array, names.SAME) for name, array in values.items()}


@pytest.mark.parametrize("form", ["nemo", "huggingface"])
@pytest.mark.parametrize("config", [SMALLEST, FAMILY])
def test_matching_undoes_naming(config, form):
    named = name_parameters(fill(config, arrays(config)), form)
    assert {name: tensor.shape for name, tensor in named.items()} == {
        name: array.shape for name, array in theirs(config, form).items()
    }
    found = match_parameters(config, named, form)
    for name, expected in arrays(config).items():
        assert found[name].shape == expected.shape and found[name].size == expected.size
        np.testing.assert_array_equal(np.asarray(found[name]), expected)


@pytest.mark.parametrize("dtype,allowed", [(np.float16, True), (ml_dtypes.bfloat16, True), (np.int32, False)])
def test_types_of_parameters(dtype, allowed):
    values = tensors(theirs(SMALLEST, "nemo", dtype=dtype))
    if allowed:
        assert {tensor.dtype for tensor in match_parameters(SMALLEST, values, "nemo").values()} == {np.dtype(dtype)}
    else:
        with pytest.raises(ConvertError, match=r"is int32, not float32, float16 or bfloat16"):
            match_parameters(SMALLEST, values, "nemo")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_are_checked_when_they_are_read(value):
    values = theirs(SMALLEST, "nemo")
    values["joint.enc.bias"][-1] = value
    found = match_parameters(SMALLEST, tensors(values), "nemo")
    with pytest.raises(ConvertError, match=whole("the tensor joint.enc.bias holds NaN or infinity")):
        np.asarray(found["joint.encoder.bias"])
    assert np.isfinite(np.asarray(found["joint.prediction.bias"])).all()


def test_a_checkpoint_of_fewer_tensors_than_layers():
    values = tensors(dict.fromkeys(["a", "b"], np.ones(1, np.float32)))
    with pytest.raises(ConvertError, match=r"^the tensors do not fit the settings: encoder\..* is missing; .* more$"):
        match_parameters(SMALLEST, values, "nemo")  # two layers, one of them of the prediction network
    values.pop("b")
    with pytest.raises(ConvertError, match=r"^the settings name 2 layers, but there are only 1 tensors$"):
        match_parameters(SMALLEST, values, "nemo")


def test_tensors_in_memory():
    tensor = in_their_layout(np.arange(6, dtype=np.float16).reshape(2, 3), names.TRANSPOSED)
    assert (tensor.shape, tensor.dtype, tensor.size, tensor.nbytes) == ((3, 2), np.float16, 6, 12)
    assert np.asarray(tensor, np.float64).dtype == np.float64 and np.asarray(tensor).dtype == np.float16
    np.testing.assert_array_equal(np.asarray(tensor), [[0, 3], [1, 4], [2, 5]])


def test_sha256_of_a_file_of_several_blocks(tmp_path):
    data = np.random.default_rng(0).bytes((9 << 20) + 5)
    (tmp_path / "file").write_bytes(data)
    assert source.sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_preserved_settings_are_for_the_same_form(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    origin = provenance("nemo", {"name": tmp_path / "file"}, settings="a: 1")
    assert origin["files"] == {"name": hashlib.sha256(b"x").hexdigest()} and str(tmp_path) not in str(origin)
    versions = {"nemojax": nemojax.__version__, "jax": jax.__version__, "numpy": np.__version__}
    assert origin["format"] == "nemo" and origin["versions"] == versions
    assert preserved(origin, "nemo") == {"settings": "a: 1"} and preserved(origin, "huggingface") == {}
    for damaged in (None, {}, {"format": "nemo"}, {"format": "nemo", "kept": 3}):
        assert preserved(damaged, "nemo") == {}


def test_read_native(tmp_path):
    model = fill(SMALLEST, arrays(SMALLEST))
    for name, saved in {"float": model, "int8": quantization.quantize(model)}.items():
        checkpoint.save(tmp_path / name, saved, tokenizer(SMALLEST.vocabulary), {"a": 1})
    native = source.read_native(tmp_path / "float", ml_dtypes.bfloat16)
    assert native.config == SMALLEST and native.origin == {"a": 1} and native.tokenizer == tokenizer(30)
    assert native.model.joint.output.kernel[...].dtype == ml_dtypes.bfloat16
    assert (
        2 * native.nbytes
        == source.read_native(tmp_path / "float").nbytes
        == sum(array.nbytes for array in arrays(SMALLEST).values())
    )
    with pytest.raises(
        ConvertError, match=ending(" has weights in int8; convert the checkpoint that it was made from instead")
    ):
        source.read_native(tmp_path / "int8")
