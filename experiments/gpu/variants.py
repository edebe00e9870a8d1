"""Forms of the model that are compared: they hold the same parameters."""

import jax

from nemojax.kernels.fused_attention import fuse
from nemojax.kernels.narrow import narrow
from nemojax.kernels.selection import sized
from nemojax.model.transducer import Transducer


def variant(model: Transducer, name: str) -> Transducer:
    """Returns the model as "plain", "fused" (attention in one kernel) or "narrow" (fused, activations of bfloat16).

    Without a GPU the kernel is interpreted, which is slow.
    """
    model = sized(model)
    if name == "plain":
        return model
    if name == "narrow":
        model = narrow(model)
    return fuse(model, interpret=jax.default_backend() != "gpu")
