"""Parameters of a model by their paths, and the model as a flat pytree."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from nemojax.config import EncoderConfig, ModelConfig
from nemojax.errors import CheckpointError, ConfigError
from nemojax.model.transducer import Transducer

Form = Callable[[Transducer], Transducer]


def abstract_model(config: ModelConfig, form: Form | None = None) -> Transducer:
    """Returns the model with a `jax.ShapeDtypeStruct` in the place of each parameter.

    Args:
      form: changes a model's layers, all blocks alike, such as `kernels.quantization.quantize`.
    """
    leaves, structure = _abstract_leaves(config, form)
    model: Transducer = jax.tree.unflatten(structure, leaves)
    return model


@functools.lru_cache(maxsize=16)
def _abstract_leaves(config: ModelConfig, form: Form | None) -> tuple[list[Any], Any]:
    """Traces the constructors of one block, and copies it: tracing all 24 takes 0.3 s, and their form as long."""
    one_block = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=1))
    model = jax.eval_shape(lambda: Transducer(one_block, rngs=None))
    model = model if form is None else jax.eval_shape(form, model)
    _set_config(model, config)
    block = model.encoder.blocks[0]
    copies = [jax.tree.map(lambda x: x, block) for _ in range(config.encoder.layers)]
    model.encoder.blocks = nnx.List(copies)
    return jax.tree.flatten(model)


def named_parameters(model: Transducer) -> dict[str, Any]:
    """Returns every parameter by its path, such as "encoder.blocks.0.attention.query.kernel"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(model)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
    return {name(path): leaf for path, leaf in paths}


def fill(config: ModelConfig, arrays: Mapping[str, Any]) -> Transducer:
    """Makes a model of the given arrays: one for each parameter's path, of its shape, and no others.

    Raises:
      CheckpointError: names what is missing, unknown, or of another shape.
    """
    model = abstract_model(config)
    wanted = {name: leaf.shape for name, leaf in named_parameters(model).items()}
    check_shapes(wanted, {name: tuple(array.shape) for name, array in arrays.items()})
    filled: Transducer = jax.tree.unflatten(jax.tree.structure(model), [arrays[name] for name in wanted])
    return filled


def check_shapes(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Compares the shapes of parameters. Raises CheckpointError, which names what differs."""
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not a parameter of this model" for name in found if name not in wanted]
    problems += [
        f"{name} has the shape {list(found[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"the weights do not fit the settings: {'; '.join(problems[:5])}{more}")


def with_config(model: Transducer, config: ModelConfig) -> Transducer:
    """Returns the same weights, in the layout they have, under other settings, such as another left context.

    Raises:
      ConfigError: the settings need weights of other shapes.
    """
    shapes = lambda c: {name: leaf.shape for name, leaf in named_parameters(abstract_model(c)).items()}
    before, after = shapes(model.config), shapes(config)
    if before != after:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(f"these settings need other weights: {changed[0]}{more} would change shape")
    model = jax.tree.map(lambda x: x, model)  # modules of its own, of the same arrays
    _set_config(model, config)
    return model


def _set_config(model: Transducer, config: ModelConfig) -> None:
    """Gives every module its part of other settings."""
    for _, module in nnx.iter_modules(model):
        own = getattr(module, "config", None)
        if isinstance(own, ModelConfig | EncoderConfig):
            setattr(module, "config", config if isinstance(own, ModelConfig) else config.encoder)  # noqa: B010  mypy


def parameter_count(model: nnx.Module) -> int:
    """Returns the number of weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))


class _Structure:
    """A tree's structure that is compared by identity first: comparing modules takes milliseconds."""

    def __init__(self, treedef: Any):
        self.treedef, self._hash = treedef, hash(treedef)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Structure) and self.treedef == other.treedef)


@jax.tree_util.register_pytree_node_class
class FrozenModel:
    """A Transducer flattened once, for functions that are called many times a second.

    Flattening 651 parameters that are Python objects takes 5 ms a call; this takes 0.3. It is a pytree of
    the same arrays; `thaw` gives the module back, at no cost inside `jax.jit`.
    """

    def __init__(self, leaves: Sequence[Any], structure: _Structure):
        self.leaves, self.structure = leaves, structure

    def tree_flatten(self) -> tuple[Sequence[Any], _Structure]:
        """Returns the arrays and the structure, as jax asks."""
        return self.leaves, self.structure

    @classmethod
    def tree_unflatten(cls, structure: _Structure, leaves: Sequence[Any]) -> "FrozenModel":
        """Undoes `tree_flatten`."""
        return cls(leaves, structure)


def freeze(model: Transducer) -> FrozenModel:
    """Flattens a model."""
    leaves, treedef = jax.tree.flatten(model)
    return FrozenModel(leaves, _Structure(treedef))


def thaw(model: Transducer | FrozenModel) -> Transducer:
    """Returns the module that a flattened model stands for."""
    return jax.tree.unflatten(model.structure.treedef, model.leaves) if isinstance(model, FrozenModel) else model
