"""nemojax against values that NeMo and transformers computed, and archives that they wrote (see experiments/references/golden.py).

The bars are those of the live comparison, each with its reason in tests/parity/seams.py; at float32 and the
highest matmul precision.
"""  # noqa: E501

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert.huggingface import checkpoint as huggingface
from convert.nemo import checkpoint as nemo
from experiments.references.traces import Decoding
from nemojax.kernels import selection
from nemojax.model.parameters import fill, named_parameters
from nemojax.text.tokenizer import Tokenizer
from tests.helpers.compiler import needs_compiler
from tests.helpers.tracing import Run, Traced
from tests.parity.seams import LOG_MEL_MEAN, Seams
from tests.parity.test_decoding import SEAMS

GOLDEN = Path(__file__).parent / "golden"
READ = {"released": lambda: nemo.read(GOLDEN / "released.nemo"), "family": lambda: huggingface.read(GOLDEN / "family")}
LOOKAHEADS = [0, 1, 6, 13]
RECORDINGS = ["long", "short"]


class Golden:
    def __init__(self, name: str):
        self.name, self.source = name, READ[name]()
        self.model = jax.tree.map(jnp.asarray, fill(self.source.config, self.source.arrays))
        self.nemojax = Traced(self.model)
        with np.load(GOLDEN / f"{name}.npz") as values:
            self.values = dict(values)
        self.recordings = [self.values[recording].astype(np.float32) / 32768 for recording in RECORDINGS]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}

    @cache  # noqa: B019
    def stream(self, lookahead: int) -> list[Run]:
        return self.nemojax.run(self.recordings, lookahead, 1, caches=True)


@pytest.fixture(scope="module", params=READ)
def golden(request) -> Golden:
    return Golden(request.param)


def compare(golden: Golden, run: Run, traced: Traced, values: dict[str, np.ndarray]) -> None:
    """Every seam of the long recording at look-ahead 13, up to the tokens."""
    seams = Seams()
    seams.compare("NeMo", "log_mel", run.trace["log_mel"], values["long.log_mel"], golden.name)
    theirs = {key: value for key, value in values.items() if key.startswith("long.R13.offline.")}
    trace = {key.removeprefix("long.R13.offline."): value for key, value in theirs.items()}
    assert {"subsampling", "scaled", "block0.attention", "block0.convolution", "block0", "encoder"} <= trace.keys()
    seams.compare_traces("NeMo", run.trace, trace, golden.name)
    decoding = Decoding(**{field: values[f"long.R13.decoding.{field}"] for field in Decoding._fields})
    ours = traced.decoding(run.trace["encoder"], decoding.tokens, decoding.looked)
    for field, seam in SEAMS.items():
        seams.compare("NeMo", seam, ours[field], getattr(decoding, field), golden.name)
    assert run.tokens == decoding.tokens.tolist() and run.frames == decoding.frames.tolist()


def test_every_seam(golden):
    compare(golden, golden.stream(13)[0], golden.nemojax, golden.values)
    off = golden.stream(13)[0].trace["log_mel"] - golden.values["long.log_mel"]
    assert np.abs(off).mean() < LOG_MEL_MEAN


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_stream(golden, lookahead):
    """Chunk by chunk with caches, the incomplete last chunk, tokens, frames and text; two recordings side by side."""
    seams, tokenizer = Seams(), Tokenizer(golden.source.tokenizer)
    for recording, run in zip(RECORDINGS, golden.stream(lookahead), strict=True):
        key, compared = f"{recording}.R{lookahead}", 0
        for i, caches in enumerate(run.caches):
            chunk = golden.under(f"{key}.chunk{i}.")
            theirs = {name.removeprefix("cache."): value for name, value in chunk.items() if name.startswith("cache.")}
            if chunk:
                ours = run.trace["encoder"][i * (lookahead + 1) : (i + 1) * (lookahead + 1)]
                seams.compare("transformers", "encoder", ours, chunk["encoder"], f"{key}, chunk {i}")
                compared += 1
            if theirs:
                seams.compare_caches("transformers", caches, theirs, f"{key}, chunk {i}")
        assert compared == sum(name.endswith(".encoder") for name in golden.under(f"{key}.chunk"))
        seams.compare("NeMo", "encoder", run.trace["encoder"], golden.values[f"{key}.offline.encoder"], key)
        assert run.tokens == golden.values[f"{key}.tokens"].tolist()
        assert run.frames == golden.values[f"{key}.frames"].tolist()
        assert tokenizer.decode(run.tokens) == str(golden.values[f"{key}.text"])
    assert {"cache.keys", "cache.values", "cache.convolution"} <= {seam for seam, _ in seams.lines}


@needs_compiler
def test_kernels_in_a_fixed_order_show_every_seam(golden):
    model = selection.for_backend(golden.model, kernels="native", reproducible=True)
    [run] = Traced(model).run(golden.recordings[1:], 13, 1)
    plain = golden.stream(13)[1].trace
    assert run.trace.keys() == plain.keys()
    for name, values in run.trace.items():
        np.testing.assert_allclose(values, plain[name], rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_every_parameter_is_seen(golden):
    """Any parameter that is a little off is noticed, but for what changes nothing.

    A bias of the keys adds the same to all scores of a query; the keys in the caches hold it.
    """
    arrays = named_parameters(golden.model)
    unnoticed = set()
    for name, array in arrays.items():
        changed = fill(golden.source.config, arrays | {name: array + 0.02 * jnp.sign(array)})
        traced = Traced(changed)
        if not differs(golden, traced.run(golden.recordings, 13, 1)[0], traced, golden.values):
            unnoticed.add(name)
    assert len(arrays) > 60 and unnoticed == {name for name in arrays if name.endswith("attention.key.bias")}


def test_every_value_is_seen(golden):
    run, seen = golden.stream(13)[0], ("long.log_mel", "long.R13.offline", "long.R13.decoding")
    for key, value in golden.values.items():
        if key.startswith(seen) and not key.endswith("looked"):
            changed = value.copy()
            changed.flat[changed.size // 2] += 1 if value.dtype == np.int32 else 0.01
            assert differs(golden, run, golden.nemojax, golden.values | {key: changed}), key


def differs(golden: Golden, run: Run, traced: Traced, values: dict[str, np.ndarray]) -> bool:
    try:
        compare(golden, run, traced, values)
    except AssertionError:
        return True
    return False


def test_size_and_versions():
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    versions = json.loads((GOLDEN / "versions.json").read_text())
    assert {"python", "torch", "nemo_toolkit", "transformers", "seed"} <= versions.keys()
