"""Archives, settings and weights made at random: each is read or refused in one line, within time and memory.

Damage to a good file, in test_hostile.py, seldom gets past a checksum or a parser. Here files are put together from
the parts that readers have special cases for, with good checksums.
"""

import json
import resource
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert import nemo
from convert.nemo import torch_format
from convert.nemo.archive import open_nemo
from convert.sections import read_yaml
from tests.convert import fuzzing
from tests.convert.fuzzing import check
from tests.convert.samples import SMALLEST, file_of, header, nemo_members, rezipped, tar, torch_bytes
from tests.convert.samples import settings as samples_settings

pytestmark = pytest.mark.slow

MAX_BYTES = 1_000_000_000  # of memory, beyond the model itself
fuzzed = fuzzing.fuzzed(400)


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    before = peak_bytes()
    yield
    assert peak_bytes() - before < MAX_BYTES


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.integers(0, 1 << 33),
    st.sampled_from([0, 1, 511, 512, 513, 1 << 31, 1 << 63, -1]),
)
NAMES = st.one_of(
    st.sampled_from(["model_config.yaml", "./model_weights.ckpt", "a/model_config.yaml", "..", "/", "x\0y", "n" * 300]),
    st.text(max_size=120),
)
KINDS = st.sampled_from([bytes([kind]) for kind in b"01234567LKxgSVXA"] + [b"\0", b"\xff"])
KEYS = st.sampled_from(
    [
        *("size", "path", "linkpath", "mtime", "uid", "hdrcharset", "charset", "GNU.sparse.map", "GNU.sparse.size"),
        *("GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.offset"),
        *("GNU.sparse.numbytes", "GNU.sparse.numblocks", "SCHILY.xattr.a", "BINARY", ""),
    ]
)


@st.composite
def extension(draw) -> bytes:
    """Draws the body of a header that extends another: records of a pax header, right or wrong, or any bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=1500))
    records = b""
    for _ in range(draw(st.integers(0, 4))):
        value = draw(st.one_of(NUMBERS.map(str), st.text(max_size=30), st.just("1," * 400), st.just("9" * 3000)))
        record = f" {draw(KEYS)}={value}\n".encode(errors="surrogatepass")
        size = len(record) + 2
        size += len(str(size)) - 2 + draw(st.sampled_from([0, 0, 0, 1, -1, 10**6]))
        records += str(size).encode() + record
    return records


@st.composite
def tars(draw) -> bytes:
    """Draws a tar of members whose headers have good checksums."""
    made = b""
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(KINDS)
        body = draw(extension()) if kind in b"LKxgX" and kind else draw(st.binary(max_size=600))
        info = tarfile.TarInfo(draw(NAMES).encode(errors="replace")[:90].decode(errors="ignore"))
        info.type, info.size = kind, len(body)
        block = bytearray(info.tobuf(tarfile.USTAR_FORMAT, errors="replace")[-512:])
        if draw(st.integers(0, 3)) == 0:
            number = draw(NUMBERS)
            block[124:136] = (b"%011o\0" % (number % (1 << 33))) if number >= 0 else b"\xff" * 12
        if kind == b"S":
            block[386:495] = (draw(st.binary(max_size=109)) + bytes(109))[:109]
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        made += bytes(block) + body + bytes(-len(body) % 512)
        made += bytes(draw(st.sampled_from([0, 0, 0, 0, 512, 100])))
    return made + bytes(1024)


@fuzzed
@given(tars())
def test_archives(tmp_path, made):
    path = tmp_path / "model.nemo"
    path.write_bytes(made)
    check(lambda: [member.read(10) for member in open_nemo(path).values()])


@fuzzed
@given(tars())
def test_headers_before_a_good_archive(tmp_path, made):
    path = tmp_path / "model.nemo"
    path.write_bytes(made[:-1024] + tar(nemo_members(SMALLEST)))
    check(lambda: nemo.read(path))


YAML = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(
                    "a",
                    "b",
                    ": ",
                    "- ",
                    "\n",
                    "\n  ",
                    "[",
                    "]",
                    "{",
                    "}",
                    ", ",
                    "&x ",
                    "*x",
                    "<<: ",
                    "? ",
                    "!!int ",
                    "!!binary ",
                ),
                *(
                    "!!python/name:os.system ",
                    "'",
                    '"',
                    "|\n ",
                    ">\n ",
                    "%TAG ! x\n",
                    "---\n",
                    "...\n",
                    "#",
                    "\t",
                    "!!set ",
                ),
                *(
                    "1:59:59",
                    "0x" + "f" * 2000,
                    "9" * 4000,
                    "1" + ":59" * 2000,
                    "1e400",
                    ".nan",
                    "2001-99-99",
                    "~",
                    "yes",
                ),
                *("!!float ", "!!timestamp ", "\\ud800", "\u0085", "\ufeff", "!!omap ", "!!pairs ", "1_" * 1000 + ".0"),
            ]
        ),
        st.text(max_size=3),
    ),
    max_size=40,
).map("".join)


@fuzzed
@given(YAML)
def test_yaml(text):
    check(lambda: read_yaml(text.encode(errors="surrogatepass"), "name"))


VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-3, 1 << 20), st.integers(), st.floats(), st.text(max_size=8)),
        st.sampled_from(
            ["per_feature", "NA", "tdt", "agg", "bpe", "greedy", "beam", "causal", "regular", [70, -1], [[70, 1]]]
        ),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@fuzzed
@given(st.data())
def test_settings_with_other_values(tmp_path, data):
    """Up to four values of the settings of a good archive are replaced, added or removed."""
    made = samples_settings(SMALLEST)
    for _ in range(data.draw(st.integers(1, 4))):
        place = made
        while True:
            key = data.draw(st.one_of(st.sampled_from([*place, "new"]), st.text(max_size=8)))
            if not isinstance(place.get(key), dict) or data.draw(st.integers(0, 4)) == 0:
                break
            place = place[key]
        if data.draw(st.booleans()):
            place.pop(key, None)
        else:
            place[key] = data.draw(VALUES)
    path = tmp_path / "model.nemo"
    text = json.dumps(made).encode()  # which is YAML too
    path.write_bytes(tar(nemo_members(SMALLEST) | {"model_config.yaml": text}))
    check(lambda: nemo.read(path))


INSTRUCTIONS = st.one_of(
    st.sampled_from(
        [
            *(
                b"(",
                b")",
                b"}",
                b"t",
                b"u",
                b"s",
                b"R",
                b"Q",
                b"b",
                b"q\0",
                b"q\1",
                b"h\0",
                b"h\1",
                b"\x85",
                b"\x86",
                b"\x87",
            ),
            *(
                b"\x88",
                b"\x89",
                b"\x93",
                b"\x94",
                b"\x95" + bytes(8),
                b"0",
                b"2",
                b"N",
                b"]",
                b"e",
                b"a",
                b"\x81",
                b"\x92",
            ),
            *(b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"),
            *(b"cos\nsystem\n", b"X\7\0\0\0storage", b"X\1\0\0\x000", b"X\3\0\0\0cpu", b"\x8c\5torch", b"\x8c\1w"),
            *(
                b"J\6\0\0\0",
                b"J\xff\xff\xff\xff",
                b"K\0",
                b"K\1",
                b"K\6",
                b"\x8a\xff" + b"\x7f" * 255,
                b"X\3\0\0\0\xed\xa0\x80",
            ),
        ]
    ),
    st.binary(max_size=3),
)


@fuzzed
@given(st.lists(INSTRUCTIONS, max_size=60).map(b"".join), st.sampled_from([b"\x80\2", b"\x80\4", b""]))
def test_descriptions_of_tensors(instructions, start):
    good = torch_bytes({"w": np.arange(6, dtype=np.float32)})
    made = rezipped(good, {"data.pkl": start + instructions + b"."})
    check(lambda: [np.asarray(tensor) for tensor in torch_format.read(file_of(made)).values()])


@fuzzed
@given(
    st.dictionaries(
        st.sampled_from(["data.pkl", "data/0", "data/1", "version", "byteorder", "constants.pkl", "../x", "data/\n"]),
        st.none() | st.binary(max_size=100),
    ),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_entries_of_weights(change, compression):
    good = torch_bytes({"w": np.arange(6, dtype=np.float32)})
    made = rezipped(good, change, compression=compression)
    check(lambda: [np.asarray(tensor) for tensor in torch_format.read(file_of(made)).values()])


@pytest.mark.parametrize("count", [10, 990])
def test_many_members_with_long_names(tmp_path, count):
    members = [(header(f"{'n' * 3000}{i}"), b"") for i in range(count)]
    path = tmp_path / "model.nemo"
    path.write_bytes(tar(members))
    check(lambda: nemo.read(path))
