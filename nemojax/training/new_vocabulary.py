"""A trained model that learns another vocabulary: what the tokenizer decides is made anew, all else is kept."""

import dataclasses

import jax
from flax import nnx

from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer

# what has a row or a column for each label
BY_LABEL = ("prediction.embedding", "joint.output.kernel", "joint.output.bias")


def with_vocabulary(model: Transducer, vocabulary: int, seed: int = 0) -> Transducer:
    """The model for a tokenizer of `vocabulary` pieces, the parameters that know labels drawn at random.

    Blank's output is kept: when to wait is learnt from speech, not from a tokenizer.
    """
    config = dataclasses.replace(model.config, vocabulary=vocabulary)
    old = named_parameters(model)

    @jax.jit  # so that of the fresh model only what is wanted is ever made
    def fresh():
        named = named_parameters(Transducer(config, rngs=nnx.Rngs(seed)))
        return {name: named[name].astype(old[name].dtype) for name in BY_LABEL}

    new = old | fresh()
    for name in BY_LABEL[1:]:  # blank is the last label
        new[name] = new[name].at[..., -1].set(old[name][..., -1])
    return fill(config, new)
