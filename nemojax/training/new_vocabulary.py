"""Another vocabulary for a trained model: parameters with a row per label are drawn again, all others are kept."""

import dataclasses

import jax
from flax import nnx

from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer

# parameters with a row or a column for each label
BY_LABEL = ("prediction.embedding", "joint.output.kernel", "joint.output.bias")


def with_vocabulary(model: Transducer, vocabulary: int, seed: int = 0) -> Transducer:
    """Returns the model for a tokenizer of `vocabulary` pieces, with parameters `BY_LABEL` drawn at random.

    Blank's output weights are kept: when to emit nothing is learned from speech and hardly depends on the tokenizer.
    """
    config = dataclasses.replace(model.config, vocabulary=vocabulary)
    old = named_parameters(model)

    @jax.jit  # of the new model, only these parameters are ever allocated
    def fresh() -> dict[str, jax.Array]:
        named = named_parameters(Transducer(config, rngs=nnx.Rngs(seed)))
        return {name: named[name].astype(old[name].dtype) for name in BY_LABEL}

    new = old | fresh()
    for name in BY_LABEL[1:]:  # blank is the last label
        new[name] = new[name].at[..., -1].set(old[name][..., -1])
    return fill(config, new)
