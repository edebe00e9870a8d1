"""Settings and models that all tests share."""

import dataclasses
import gc
import io
import os
import resource
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

# Before the first import of jax. Processes that tests start inherit these, so they find the same compiled programs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # thousands of programs are tiny
# Level 0 without fusion emitters compiles a training step in a quarter of the time; newer jaxlib lacks that flag.
# Code is generated in one piece: 32 pieces, the default, take about a fifth more CPU time to compile a step.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sentencepiece import SentencePieceTrainer

from nemojax import checkpoint, garbage
from nemojax.config import PRESETS, ModelConfig
from nemojax.model.parameters import abstract_model, fill, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.tokenizer import Tokenizer

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

# Tracing keeps millions of objects. With Python's own thresholds, the collector takes a seventh of the tests' time.
gc.set_threshold(200_000, 50, 50)

# resident memory above which it is freed, after a module and after a test
LARGE_BYTES, LARGEST_BYTES = 1_400_000_000, 1_700_000_000


def random_model(config: ModelConfig, seed: int = 0, blank_bias: float = 0.0) -> Transducer:
    """Random weights, no bias or scale at its initial value, so that none can be forgotten.

    Labels change with the frame and with the labels before it; `blank_bias` sets how rare they are.
    """
    rng = np.random.default_rng(seed)

    def array(name, shape):
        noise = rng.standard_normal(shape)
        if not name.endswith("kernel"):
            return name.endswith("scale") + (1.0 if "embedding" in name else 0.1) * noise
        gain = 4.0 if name in ("joint.prediction.kernel", "joint.output.kernel") or "lstm" in name else 1.0
        return gain * noise / np.sqrt(np.prod(shape[:-1]))

    shapes = {name: leaf.shape for name, leaf in named_parameters(abstract_model(config)).items()}
    arrays = {name: array(name, shape) for name, shape in shapes.items()}
    arrays["prediction.embedding"][config.blank] = 0.0
    arrays["joint.output.bias"][config.blank] += blank_bias
    return fill(config, {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()})


def resident_bytes() -> int:
    """Memory that this process uses now; where Linux does not say, its peak."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exempts what was imported from garbage collection."""
    gc.collect()
    gc.freeze()


def _call(function: Callable[..., object], arguments: dict[str, Any]) -> None:
    function(**arguments)


# Python keeps frames in pieces of 16 KB. A call at the end of a piece maps another one and its return unmaps it, which
# takes half of the system's time where a trace makes such calls by the thousand. The frame of this function needs more,
# so Python makes a piece of 2 MB, in which the frames of a test have room.
_call_with_room = FunctionType(_call.__code__.replace(co_stacksize=140_000), globals())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Runs a test with room for all its frames."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _call_with_room(pyfuncitem.obj, arguments)
    return True


def free_above(limit_bytes: int) -> None:
    """Frees compiled programs if this process uses more memory than the limit. The next use reads them from disk."""
    if resident_bytes() > limit_bytes:
        jax.clear_caches()
        gc.collect()
        garbage.give_back()  # compiling leaves freed memory in many pieces


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Frees memory after a module if it has grown large."""
    yield
    free_above(LARGE_BYTES)


@pytest.fixture(autouse=True)
def bounded_memory_within_a_module():
    """Frees memory after a test if it has grown very large."""
    yield
    free_above(LARGEST_BYTES)


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return PRESETS["tiny"]


@pytest.fixture(scope="session")
def family_config(tiny_config) -> ModelConfig:
    """The shape of the 114M models: 80 mels, biases, input scaling, one LSTM layer; a shorter left context."""
    return dataclasses.replace(
        tiny_config,
        features=dataclasses.replace(tiny_config.features, mel_bins=80),
        encoder=dataclasses.replace(
            tiny_config.encoder, use_bias=True, scale_input=True, left_context_frames=28, lookaheads=(6, 0)
        ),
        prediction=dataclasses.replace(tiny_config.prediction, layers=1),
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config) -> Transducer:
    return random_model(tiny_config, seed=1, blank_bias=6.0)


@pytest.fixture(scope="session")
def family_model(family_config) -> Transducer:
    return random_model(family_config, seed=1, blank_bias=6.0)


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Voiced glides with pauses, [N] float32 at 16 kHz, 6.4 s."""
    seconds = np.arange(int(6.4 * 16_000)) / 16_000
    pitch_hz = 140 + 60 * np.sin(2.1 * seconds)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / 16_000
    voiced = sum(np.sin(k * phase) / k for k in range(1, 12)) * (np.sin(5.3 * seconds) > -0.4)
    noise = np.random.default_rng(3).standard_normal(seconds.shape)
    return (0.1 * voiced + 0.003 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def pieces() -> bytes:
    """A SentencePiece model of as many pieces as the tiny model has labels."""
    text = ["the quick brown fox jumps over the lazy dog", "Ask not, she said; it's a fine day for one or two."]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text * 4),
        model_writer=model,
        vocab_size=64,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def recognizer(tiny_model, tiny_config, pieces) -> Recognizer:
    return Recognizer(tiny_model, tiny_config, Tokenizer(pieces), {"source": "made.nemo"})


@pytest.fixture(scope="session")
def checkpoint_directory(tmp_path_factory, tiny_model, pieces):
    directory = tmp_path_factory.mktemp("model") / "tiny"
    checkpoint.save(directory, tiny_model, pieces, {"source": "made.nemo"})
    return directory


@pytest.fixture(scope="session")
def _weights_read() -> dict[str, Any]:
    return {}


@pytest.fixture
def read_once(checkpoint_directory, _weights_read, monkeypatch) -> None:
    """Reads the weights of `checkpoint_directory` once for all commands within this process: each read takes 0.1 s."""
    load = checkpoint.load

    def load_or_copy(
        directory: str | Path, dtype: Any = None, **settings: Any
    ) -> tuple[Transducer, ModelConfig, bytes, dict[str, Any]]:
        if str(directory) != str(checkpoint_directory):
            return load(directory, dtype, **settings)
        if (key := str(dtype)) not in _weights_read:
            model, *others = load(directory, dtype)
            _weights_read[key] = jax.device_get(model), *others
        model, config, tokenizer, origin = _weights_read[key]
        return jax.device_put(model), config, tokenizer, dict(origin)

    monkeypatch.setattr(checkpoint, "load", load_or_copy)
