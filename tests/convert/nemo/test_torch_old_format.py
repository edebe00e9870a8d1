import pickle
from pathlib import Path

import numpy as np
import pytest

from convert.errors import ConvertError
from convert.nemo import torch_format
from tests.convert.samples import file_of

HERE = Path(__file__).parent
SAVED = (HERE / "saved_by_old_torch.pt").read_bytes()  # by torch 2.13; five of its tensors share one storage
KEYS_BYTE, STORAGES_BYTE = 1221, 1376  # where the keys of the storages begin, and the storages


def read(data: bytes) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in torch_format.read(file_of(data)).items()}


def test_both_formats_of_torch_give_the_same_tensors():
    found, expected = read(SAVED), read((HERE / "saved_by_torch.pt").read_bytes())
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("end", [1, 2, 15, 20, 137, 900, KEYS_BYTE, STORAGES_BYTE, STORAGES_BYTE + 8, len(SAVED) - 1])
def test_a_file_that_is_cut(end):
    with pytest.raises(ConvertError, match=r"damaged description|cut short in its tensors"):
        read(SAVED[:end])


KEYS = SAVED[KEYS_BYTE:STORAGES_BYTE]


@pytest.mark.parametrize(
    "data,message",
    [
        (SAVED + b"\0", "has 1 bytes after its tensors"),
        (pickle.dumps(7, 2) + SAVED[15:], "is a pickle, but not a torch checkpoint"),
        (SAVED.replace(pickle.dumps(1001, 2), pickle.dumps(1000, 2), 1), "is a pickle, but not a torch checkpoint"),
        (SAVED[:137].replace(b"\x88", b"\x89") + SAVED[137:], "byte order"),
        (SAVED[:STORAGES_BYTE] + b"\4" + SAVED[STORAGES_BYTE + 1 :], "a storage of 4 elements, which .* gives 3"),
        (SAVED.replace(KEYS, pickle.dumps([], 2)), "other storages than those"),
        (SAVED.replace(KEYS, pickle.dumps(["a", 1], 2)), "other storages than those"),
        (SAVED.replace(KEYS, pickle.dumps({}, 2)), "other storages than those"),
        (SAVED.replace(KEYS, b"\x80\x02]K\1K\2\x86a."), "other storages than those"),
        (SAVED.replace(KEYS, b"\x80\x02}(K\1e."), "adds items to something that is not a list"),
        (SAVED.replace(b"torch\nBFloat16Storage", b"os\nsystem"), r"names 'os\.system'"),
    ],
)
def test_files_that_are_refused(data, message):
    with pytest.raises(ConvertError, match=message):
        read(data)


def test_a_storage_of_two_types():
    name = b"X\x06\0\0\0middle"  # a view of the first storage: its description follows its name
    at = SAVED.index(name)
    kind = SAVED.index(b"h\x05", at)  # the name of the type, from the memo
    with pytest.raises(ConvertError, match="two types or sizes"):
        read(SAVED[:kind] + b"ctorch\nIntStorage\n" + SAVED[kind + 2 :])


@pytest.mark.parametrize("change", [1, 0x80])
def test_damage_anywhere_is_a_conversion_or_a_convert_error(change):
    for at in range(0, len(SAVED), 7):
        damaged = SAVED[:at] + bytes([SAVED[at] ^ change]) + SAVED[at + 1 :]
        try:
            read(damaged)
        except ConvertError as error:
            assert 0 < len(str(error)) < 2000 and "\n" not in str(error)
