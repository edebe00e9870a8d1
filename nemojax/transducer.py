"""The model: an encoder, a prediction network and a joint network (Graves 2012), and nothing else."""

import jax
from flax import nnx

from nemojax.config import ModelConfig
from nemojax.encoder import Encoder
from nemojax.joint import Joint
from nemojax.prediction import PredictionNetwork


class Transducer(nnx.Module):
    """An RNN transducer as an immutable pytree of `nnx.Param`s; its settings are static."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = Encoder(config, rngs=rngs)
        self.prediction = PredictionNetwork(config, rngs=rngs)
        self.joint = Joint(config, rngs=rngs)


def parameter_count(model: Transducer) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model))
