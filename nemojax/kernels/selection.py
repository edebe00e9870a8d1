"""Chooses which form of the model and of the step runs: the only place that does.

Requests come as arguments (`nemojax.load`). Environment variables override "auto", for support: NEMOJAX_NATIVE=0 makes
the C++ kernels unavailable, NEMOJAX_TILES=0 leaves AMX unused and NEMOJAX_TILES=emulated emulates it (for tests),
NEMOJAX_FUSED_ATTENTION=0 takes the plain attention on a GPU, NEMOJAX_NARROW=0 leaves activations in float32 there, and
NEMOJAX_COMMAND_BUFFERS=0 leaves XLA's own options.
"""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nemojax.device import default_device
from nemojax.errors import ConfigError
from nemojax.kernels import native
from nemojax.kernels.fixed_order import fix_order
from nemojax.kernels.narrow import narrow
from nemojax.kernels.quantization import PackedLinear, is_quantized, pack, plain_products, quantize, to_tiles
from nemojax.model.layers import ALL, PartSizes
from nemojax.model.parameters import parameter_count
from nemojax.model.ring import BITS
from nemojax.model.transducer import Transducer

KERNELS = ("auto", "xla", "native")
ATTENTION = ("auto", "plain", "fused")
CACHES = ("auto", "int8")
PACKED_PARAMETERS = 20_000_000  # smaller models are fast enough in XLA, and need no compiler
# Few frames at a time would not keep a GPU busy. 4,096 frames of the subsampling take 2.4 GB; the rest is small there.
GPU_PARTS = PartSizes(log_mel=ALL, subsampled=4096, feedforward=ALL, cast=ALL)
PRODUCT_ROWS = 16  # at least, of a product on a GPU
HOPPER = 9  # major compute capability of the H100
FUSED_ATTENTION_SWITCH, COMMAND_BUFFERS_SWITCH = "NEMOJAX_FUSED_ATTENTION", "NEMOJAX_COMMAND_BUFFERS"
NARROW_SWITCH = "NEMOJAX_NARROW"

# On a GPU a live step is many small kernels, which XLA can record and launch at once. The search for labels is a loop,
# so loops and conditionals are recorded too.
RECORDED = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
GPU_OPTIONS = {"xla_gpu_enable_command_buffer": RECORDED, "xla_gpu_graph_min_graph_size": 1}


def for_backend(
    model: Transducer,
    int8: bool = False,
    kernels: str = "auto",
    attention: str = "auto",
    cache: str = "auto",
    reproducible: bool | None = None,
) -> Transducer:
    """Returns the same model in the form that was asked for, or in the one that is fastest on this backend.

    On a GPU, weights of bfloat16 give outputs of bfloat16 (`kernels.narrow`): on an H100, a trial of that took 0.9 of
    the time for 1,024 streams of 1120 ms, and no label of GRID or of single digits differs from float32's.

    Args:
      int8: the weights of the encoder's blocks in int8.
      kernels: how the blocks' products are computed: "native", by the C++ kernel on a CPU, on packed weights; "xla", by
        XLA; "auto", natively on a CPU where there is a compiler and the model is large or in int8.
      attention: "fused", as one kernel on a GPU; "plain"; or "auto", fused on NVIDIA's Hopper GPUs and newer ones. In
        `python -m experiments gpu` on an H100, a step of 80 ms chunks took 0.34 of the time with it for one stream, and
        0.72 for 1,024; a step of one stream of 1120 ms took 1.1 times as long.
      cache: the type of cached keys and values: "int8", with a scale for each frame and head; or "auto", that of the
        weights. On a CPU, bfloat16 caches are kept as their bits, which XLA can write in place there.
      reproducible: results are the same bits whatever the batch, the segment and the cut (`kernels.fixed_order`). That
        needs a CPU and the C++ kernels. None: where products are native anyway, for there it costs nothing.

    Raises:
      ConfigError: what was asked for can't run here; says why.
    """
    check(kernels, attention, cache, reproducible)
    width = model.config.encoder.head_width
    unfit = None if width & (width - 1) == 0 else f"it needs heads whose width is a power of two, not {width}"
    if attention == "fused" and unfit is not None:
        raise ConfigError(f"attention='fused' can't run here: {unfit}")
    trees: list[Transducer] = []  # a name here would hold each kernel until the last one is packed
    if int8 and not is_quantized(model):
        trees.append(model)
        del model
        model = quantize(trees.pop())
    if is_quantized(model):
        if kernels == "xla":
            model = plain_products(model)
        elif jax.default_backend() == "cpu" and (reason := native.unavailable_reason()) is not None:
            warnings.warn(f"products of int8 weights take the slower, plain path: {reason}", stacklevel=3)
    elif reproducible or kernels == "native" or (kernels == "auto" and _packs_by_default(model)):
        trees.append(model)
        del model
        model = pack(trees.pop())
    if _takes_tiles(model):
        trees.append(model)
        del model
        model = to_tiles(trees.pop())
    if reproducible or (reproducible is None and _fixes_by_default(model)):
        model = fix_order(model)
    model = sized(model)
    fused = attention == "fused" or (attention == "auto" and unfit is None and _fuses_by_default())
    if fused:
        model = _fused(model)
    halves = model.joint.output.kernel.dtype == jnp.bfloat16
    if halves and jax.default_backend() == "gpu" and os.environ.get(NARROW_SWITCH) != "0":
        model = narrow(model)
    as_bits = halves and jax.default_backend() == "cpu"
    bits = jnp.dtype(BITS).name if as_bits else None
    attention_cache = bits if cache == "auto" else cache
    return model if attention_cache is None and bits is None else _with_caches(model, attention_cache, bits)


def reads_tiles(kernels: str = "auto") -> bool:
    """Whether kernels that were saved in int8 are read in tiles: a file's bytes are in cache then, and move once."""
    native_products = kernels != "xla" and jax.default_backend() == "cpu" and native.available()
    return native_products and native.tiles() is not None


def check(kernels: str, attention: str, cache: str = "auto", reproducible: bool | None = None) -> None:
    """Raises ConfigError for a request that is unknown or can't be met on this backend; no model is needed."""
    choices = (("kernels", kernels, KERNELS), ("attention", attention, ATTENTION), ("cache", cache, CACHES))
    for name, value, known in choices:
        if value not in known:
            raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    default_device()
    backend = jax.default_backend()
    if kernels == "native":
        reason = native.unavailable_reason() if backend == "cpu" else "it runs on a CPU alone"
        if reason is not None:
            raise ConfigError(f"kernels='native' can't run here: {reason}")
    if reproducible and kernels == "xla":
        raise ConfigError(
            "reproducible=True can't be met with kernels='xla': XLA's sums depend on the shape; leave kernels at 'auto'"
        )
    if reproducible and backend != "cpu":
        raise ConfigError(
            f"reproducible=True can't be met here: it needs a CPU, and jax computes on {backend!r} here; "
            "JAX_PLATFORMS=cpu chooses the CPU"
        )
    if reproducible and (reason := native.unavailable_reason()) is not None:
        raise ConfigError(f"reproducible=True can't be met here: it needs the C++ kernels, but {reason}")
    if attention == "fused" and backend != "gpu":
        raise ConfigError(f"attention='fused' can't run here: it needs a GPU, and jax computes on {backend!r} here")


def _packs_by_default(model: Transducer) -> bool:
    """Whether a model is large enough for the C++ kernel, and that is available; a small one needs no compiler."""
    large = parameter_count(model) >= PACKED_PARAMETERS
    return large and jax.default_backend() == "cpu" and native.available()


def _takes_tiles(model: Transducer) -> bool:
    """Whether the blocks' products are native, and the processor has tiles."""
    return _is_native(model) and native.tiles() is not None


def _fixes_by_default(model: Transducer) -> bool:
    """Whether sums in a fixed order cost nothing: the blocks' products are native, and all else is in float32."""
    return _is_native(model) and native.available() and bool(model.joint.output.kernel.dtype == jnp.float32)


def _is_native(model: Transducer) -> bool:
    """Whether the blocks' products are native where the kernels are available."""
    layer = model.encoder.blocks[0].feedforward1.linear1
    return isinstance(layer, PackedLinear) and layer.native_product and jax.default_backend() == "cpu"


def _fuses_by_default() -> bool:
    """Whether the fused attention is known to be fast here: it was measured on an H100, of compute capability 9.0."""
    if jax.default_backend() != "gpu" or os.environ.get(FUSED_ATTENTION_SWITCH) == "0":
        return False
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]
    return major.isdecimal() and int(major) >= HOPPER


def step_options() -> Mapping[str, Any]:
    """Returns XLA's options for the step on this backend."""
    recorded = jax.default_backend() == "gpu" and os.environ.get(COMMAND_BUFFERS_SWITCH) != "0"
    return GPU_OPTIONS if recorded else {}


def sized(model: Transducer) -> Transducer:
    """Returns the same model, with as many frames computed at a time as this backend needs.

    On a CPU the search leaves the prediction network out of rounds without a label: reading its weights takes 1 ms, of
    the 30 ms of a live step of the 0.6B model. On a GPU, where a conditional has a cost of its own, it does not.
    """
    if jax.default_backend() != "gpu":
        return model
    model = _copy(model)
    model.prediction.only_after_labels = False
    model.encoder.parts = GPU_PARTS
    for block in model.encoder.blocks:
        block.parts = block.attention.parts = GPU_PARTS
    return model


def step_rows(streams: int, frames: int) -> int:
    """Returns how many rows a batch of live streams has on this backend, for chunks of `frames` frames.

    On a GPU there are at least as many as give a product 16 rows. XLA turns each product of one row into a
    multiplication and a sum of its own: on an H100, an 80 ms step of one stream took 6.3 ms, and one of 16 rows, one of
    them active, 4.5.
    """
    return max(streams, -(-PRODUCT_ROWS // frames)) if jax.default_backend() == "gpu" else streams


def _fused(model: Transducer) -> Transducer:
    from nemojax.kernels.fused_attention import fuse  # here, for importing Pallas takes time

    return fuse(model)


def _copy(model: Transducer) -> Transducer:
    """Returns a model of modules of its own, with the same arrays."""
    copy: Transducer = jax.tree.map(lambda x: x, model)
    return copy


def _with_caches(model: Transducer, attention: str | None, convolution: str | None) -> Transducer:
    """Returns the same model with caches of other types; None is that of the weights."""
    model = _copy(model)
    for block in model.encoder.blocks:
        block.attention.cache_dtype, block.convolution.cache_dtype = attention, convolution
    return model
