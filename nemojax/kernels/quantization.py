"""Linear layers of the encoder's blocks with packed kernels, for a CPU, and with int8 weights.

A live step reads every weight once and does little with it, so its time is that of reading them: bfloat16 halves the
bytes of float32; int8, with a scale for each output, quarters them. With float32 and bfloat16 kernels activations
stay float32, and so do sums. With int8 kernels each row of activations is rounded too, to at least 13 bits
(`panels.quantize_rows`), so that sums are of integers, which 32 bits hold exactly: a row's result depends on that row
alone.

`pack` changes the layout of a model's kernels, `quantize` makes them int8 too; a checkpoint may hold the latter.
`to_tiles` changes the layout once more, for processors with tiles (AMX): products with int8 kernels have the same bits
there, and with bfloat16 kernels activations have 16 bits.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from nemojax.arena import Arena
from nemojax.kernels import panels
from nemojax.kernels.native import lays_out
from nemojax.kernels.panels import PackedKernel, panels_of, products, quantize_kernel
from nemojax.model.conformer import ConformerBlock
from nemojax.model.layers import Linear
from nemojax.model.parameters import Form, FrozenModel, thaw
from nemojax.model.transducer import Transducer

TILED = (jnp.int8, jnp.bfloat16)  # types that tiles multiply
LAYERS_AT_ONCE = 2  # threads that lay kernels out in tiles; more are hardly faster


class PackedLinear(nnx.Module):
    """Computes what `layers.Linear` does, but does not round activations to the kernel's type.

    `native_product` allows the C++ kernel; see `panels.products`.
    """

    def __init__(self, linear: Linear, int8: bool):
        self.outputs, self.bias = linear.kernel.shape[1], linear.bias
        kernel, scale = quantize_kernel(linear.kernel[...]) if int8 else (panels_of(linear.kernel[...]), None)
        self.kernel = nnx.Param(kernel)
        self.kernel_scale = None if scale is None else nnx.Param(scale)
        self.native_product = True

    def __call__(self, x: Float[Array, "*batch I"], activation: str | None = None) -> Float[Array, "*batch O"]:
        return products(x, [self.packed()], activation, self.native_product)[0]

    def packed(self) -> PackedKernel:
        """Returns the layer's kernel with its scale and bias."""
        scale = None if self.kernel_scale is None else self.kernel_scale[...]
        return PackedKernel(self.kernel[...], self.outputs, scale, None if self.bias is None else self.bias[...])


def pack(model: Transducer) -> Transducer:
    """Returns the same model with the blocks' kernels in panels, in the type they have, and all else in float32."""
    model = to_float32(model)  # what was given is not kept: each kernel is freed once it is packed
    return _replaced(model, _layers(model), int8=False)


def to_float32(model: Transducer) -> Transducer:
    """Returns the same model with everything but the kernels of the blocks in float32."""
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    layers = [*_layers(model), *_layers(model, PackedLinear)]
    kernels = {id(getattr(module, name).kernel[...]) for module, name in layers}
    widened: Transducer = jax.tree.map(lambda x: x if id(x) in kernels else x.astype(jnp.float32), model)
    return widened


def quantize(model: Transducer) -> Transducer:
    """Returns the same model with the blocks' kernels in int8, and all else in the type it has.

    Subsampling, prediction network and joint network keep their type: they are small, and labels depend on them
    directly. Kernels of positions are rounded too: no step reads them, but in float32 they would be
    a seventh of the bytes.
    """
    model = jax.tree.map(lambda x: x, model)
    positions = ((block.attention, "position") for block in model.encoder.blocks)
    return _replaced(model, chain(_layers(model), positions), int8=True)


def quantize_but_positions(model: Transducer) -> Transducer:
    """Does what `quantize` does, and leaves the kernels of positions as they are: checkpoints had this form before."""
    model = jax.tree.map(lambda x: x, model)
    return _replaced(model, _layers(model), int8=True)


def form_of(quantized: Collection[str]) -> Form | None:
    """Returns the form of a checkpoint's model by the names of its parameters in int8; None if there are none."""
    if not quantized:
        return None
    return quantize if any(".position." in name for name in quantized) else quantize_but_positions


def to_tiles(model: Transducer) -> Transducer:
    """Returns the same model with its packed kernels of int8 and bfloat16 in tiles, freed block by block."""
    if all(panels.in_tiles(getattr(module, name).kernel[...]) for module, name in _layers(model, PackedLinear)):
        return model  # as they were read
    model, arena = jax.tree.map(lambda x: x, model), Arena()
    with ThreadPoolExecutor(LAYERS_AT_ONCE) as threads:
        for block in model.encoder.blocks:
            layers = [getattr(module, name) for module, name in _layers_of(block, PackedLinear)]
            tiled = [layer for layer in layers if layer.kernel[...].dtype in TILED]
            found = _in_tiles([layer.kernel[...] for layer in tiled], arena, threads)
            for layer, kernel in zip(tiled, found, strict=True):
                layer.kernel = nnx.Param(kernel)
    return model


def _in_tiles(kernels: Sequence[Array], arena: Arena, threads: Executor) -> Sequence[Array]:
    if not all(map(lays_out, kernels)):
        return [panels.to_tiles(kernel) for kernel in kernels]
    found = list(threads.map(lambda kernel: panels.tiles_in(arena, np.asarray(kernel)), kernels))
    places = [kernel.sharding if kernel.committed else None for kernel in kernels]
    arrays: Sequence[Array] = jax.device_put(found, places)  # in one call, of which each takes 0.5 ms
    return arrays


def plain_products(model: Transducer) -> Transducer:
    """Returns the same model with the products of its packed kernels computed by XLA."""
    model = jax.tree.map(lambda x: x, model)
    for module, name in _layers(model, PackedLinear):
        getattr(module, name).native_product = False
    return model


def _replaced(model: Transducer, layers: Iterable[tuple[nnx.Module, str]], int8: bool) -> Transducer:
    """Changes the given tree layer by layer, so that a kernel that nothing else holds is freed."""
    for module, name in list(layers):  # before the first change
        setattr(module, name, PackedLinear(getattr(module, name), int8))
    return model


def _layers(model: Transducer, kind: type[nnx.Module] = Linear) -> Iterator[tuple[nnx.Module, str]]:
    """Yields the blocks' layers of a kind, each as a module and the name of an attribute."""
    for block in model.encoder.blocks:
        yield from _layers_of(block, kind)


def _layers_of(block: ConformerBlock, kind: type[nnx.Module]) -> Iterator[tuple[nnx.Module, str]]:
    """Yields a block's layers. A `Linear` of positions is left out: it is computed once, and stays as it is."""
    for module in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
        for name, layer in vars(module).items():
            if isinstance(layer, kind) and not (kind is Linear and name == "position"):
                yield module, name


def is_quantized(model: Transducer | FrozenModel) -> bool:
    """Whether the blocks' kernels are int8."""
    return bool(weights_dtype(model) == jnp.int8)


def weights_dtype(model: Transducer | FrozenModel) -> jnp.dtype:
    """Returns the type of the blocks' kernels."""
    return thaw(model).encoder.blocks[0].feedforward1.linear1.kernel[...].dtype
