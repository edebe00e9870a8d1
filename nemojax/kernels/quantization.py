"""The linear layers of the encoder's blocks with their kernels in panels, as `native` multiplies them: for a CPU.

A live step reads every weight once and does little with it, so its time is that of reading them: in bfloat16 there is
half as much to read as in float32, in int8, with a scale for each output, a quarter. With float32 and bfloat16 kernels
activations stay float32, and so do sums. With int8 kernels each row of activations is rounded too, to 13 bits or more
(`quantize_rows`), so that sums are of whole numbers, which 32 bits hold exactly: a row's result depends on that row
alone.

Panels hold 16 outputs each, [P, I, 16], the last one filled up with zeros; each is read straight on. In int8 two inputs
of an output lie side by side, [P, I / 2, 16, 2]. `pack` changes how a model's kernels lie, and `quantize` makes them
int8 too; a checkpoint may hold the latter. Where `native` is not available its products are computed plainly, here.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from nemojax.kernels.panels import product, quantize_kernel, to_panels
from nemojax.model.layers import Linear, broadcast_vector
from nemojax.model.parameters import FrozenModel, thaw
from nemojax.model.transducer import Transducer


class PackedLinear(nnx.Module):
    """What `layers.Linear` computes, but that activations are not rounded to the kernel's type."""

    def __init__(self, linear: Linear, int8: bool):
        self.outputs, self.bias = linear.kernel.shape[1], linear.bias
        kernel, scale = quantize_kernel(linear.kernel[...]) if int8 else (to_panels(linear.kernel[...]), None)
        self.kernel = nnx.Param(kernel)
        self.kernel_scale = None if scale is None else nnx.Param(scale)

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        scale = None if self.kernel_scale is None else self.kernel_scale[...]
        y = product(x, self.kernel[...], self.outputs, scale)
        return y if self.bias is None else y + broadcast_vector(self.bias[...], y.ndim)


def pack(model: Transducer) -> Transducer:
    """The same model with the blocks' kernels in panels, in the type they have, and all else in float32."""
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    kernels = {id(getattr(module, name).kernel[...]) for module, name in _layers(model)}
    model = jax.tree.map(lambda x: x if id(x) in kernels else x.astype(jnp.float32), model)
    return _replaced(model, int8=False)


def quantize(model: Transducer) -> Transducer:
    """The same model with the blocks' kernels in int8, and all else in the type it has.

    Projections of positions are left as they are: they are computed once. So are subsampling, prediction network and
    joint network: they are small, and labels depend on them directly.
    """
    model = jax.tree.map(lambda x: x, model)
    return _replaced(model, int8=True)


def _replaced(model: Transducer, int8: bool) -> Transducer:
    """Changes the tree that it is given, layer by layer: a kernel that nothing else holds is not kept."""
    for module, name in list(_layers(model)):
        setattr(module, name, PackedLinear(getattr(module, name), int8))
    return model


def _layers(model: Transducer) -> Iterator[tuple[nnx.Module, str]]:
    """The blocks' linear layers: each as an attribute of a module."""
    for block in model.encoder.blocks:
        for module in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
            yield from (
                (module, name)
                for name, layer in vars(module).items()
                if isinstance(layer, Linear) and name != "position"
            )


def is_quantized(model: Transducer | FrozenModel) -> bool:
    return weights_dtype(model) == jnp.int8


def weights_dtype(model: Transducer | FrozenModel):
    """The type of the blocks' kernels."""
    return thaw(model).encoder.blocks[0].feedforward1.linear1.kernel[...].dtype
