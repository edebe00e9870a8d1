"""One mesh of devices, of any shape, and how a run's state and batches are spread over it.

The mesh has two axes. Rows of a batch are spread over both. Large parameters, and the optimizer's state for each, are
spread over "fsdp" and copied along "data": (n, 1) is data parallel, (1, n) fully sharded. Processes may share the mesh
(`jax.distributed`); each contributes its own rows.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.training.forward import Batch, Placement
from nemojax.training.losses import Loss
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import Parameters, TrainState
from nemojax.training.step import StepMetrics, train_step

AXES = ("data", "fsdp")
Table = Sequence[tuple[str, P]]

# the first pattern that matches a parameter's path decides; a parameter that matches none is whole on every device
TABLE: Table = (
    ("encoder.subsampling.conv_in.kernel", P(None, None, None, "fsdp")),
    ("encoder.subsampling.depthwise.*.kernel", P(None, None, None, "fsdp")),
    ("joint.output.kernel", P("fsdp", None)),  # a vocabulary with blank is rarely a round number
    ("*kernel", P(None, "fsdp")),
    ("prediction.embedding", P(None, "fsdp")),
)


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """Returns a mesh of all devices of all processes. One size may be -1: the devices that the other size leaves.

    Raises:
      ConfigError: the sizes do not fit the number of devices.
    """
    devices, sizes = jax.device_count(), [data, fsdp]
    if -1 in sizes and 0 not in sizes:
        sizes[sizes.index(-1)] = devices // abs(data * fsdp)
    if min(sizes) < 1 or sizes[0] * sizes[1] != devices:
        raise ConfigError(f"a mesh of data={data} and fsdp={fsdp} does not fit {devices} devices")
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 2)


def parameter_spec(name: str, table: Table = TABLE) -> P:
    """Returns how a parameter's dimensions are spread over the mesh."""
    return next((spec for pattern, spec in table if fnmatchcase(name, pattern)), P())


def state_shardings(state: TrainState, mesh: Mesh | AbstractMesh, table: Table = TABLE) -> TrainState:
    """Returns a sharding for each array of a state, which may be abstract (`jax.eval_shape` of `state.init`).

    The optimizer's state for a parameter, found by the parameter's path, is placed like the parameter.

    Raises:
      ConfigError: a dimension is not a multiple of the axis that the table spreads it over.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        keys = [str(entry.key) for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        spec = parameter_spec(keys[-1], table) if keys else P()
        for size, axis in zip(leaf.shape, spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ConfigError(
                    f"{keys[-1]}: {list(leaf.shape)} can't be spread as {spec} over {axis}={mesh.shape[axis]}; "
                    f"choose another size of {axis}, or give the parameter another row in the table"
                )
        return NamedSharding(mesh, spec)

    shardings: TrainState = jax.tree_util.tree_map_with_path(sharding, state)
    return shardings


def place_state(state: TrainState, shardings: TrainState) -> TrainState:
    """Spreads a state over the mesh; every process holds it whole."""

    def place(leaf: Any, sharding: NamedSharding) -> Array:
        return _assembled(np.asarray(leaf), sharding)

    placed: TrainState = jax.tree.map(place, state, shardings)
    return placed


def _assembled(host: np.ndarray, sharding: NamedSharding) -> Array:
    """Places the parts of an array on this process's devices, each by an explicit transfer."""
    parts = sharding.addressable_devices_indices_map(host.shape).items()
    placed = [jax.device_put(host[index], device) for device, index in parts]
    return jax.make_array_from_single_device_arrays(host.shape, sharding, placed)


def place_batch(batch: Any, mesh: Mesh) -> Batch:
    """Places this process's rows as its part of the global batch.

    Args:
      batch: any object with the fields of `forward.Batch`.

    Raises:
      ConfigError: the rows can't be spread evenly over this process's devices.
    """
    rows, here = len(batch.samples), len(mesh.local_devices)
    if rows % here:
        raise ConfigError(f"{rows} rows can't be spread evenly over {here} devices; make batches of a multiple of it")
    sharding = NamedSharding(mesh, P(AXES))
    arrays = (np.asarray(getattr(batch, name)) for name in Batch._fields)
    return Batch(*(jax.make_array_from_process_local_data(sharding, array) for array in arrays))


def placement(mesh: Mesh, table: Table = TABLE) -> Placement:
    """Returns a placement in which rows stay on their device, and whole parameters are gathered there.

    Gradients are then scattered to where the parameters are. Without this, XLA also moves rows to parameters, the
    joint's logits for example, and computes an FFT of all rows on every device. The units that the joint's dropout
    zeroes depend on the mesh; nothing else does.
    """

    def gather(parameters: Parameters) -> Parameters:
        return {name: _gathered(x, mesh, parameter_spec(name, table)) for name, x in parameters.items()}

    def by_rows(function: Callable[..., Any]) -> Callable[..., Any]:
        def here(rows: Any, shared: Any, key: Array | None) -> Any:
            key = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(AXES))
            return function(rows, shared, key)

        specs = P(AXES), P(), P()
        return jax.shard_map(here, mesh=mesh, in_specs=specs, out_specs=P(AXES), check_vma=False)

    return Placement(gather, by_rows)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(x: Array, mesh: Mesh, spec: P) -> Array:
    whole: Array = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P()))
    return whole


_gathered.defvjp(
    lambda x, mesh, spec: (_gathered(x, mesh, spec), None),
    lambda mesh, spec, _, gradient: (jax.lax.with_sharding_constraint(gradient, NamedSharding(mesh, spec)),),
)


def sharded_step(
    mesh: Mesh,
    shardings: TrainState,
    config: ModelConfig,
    recipe: TrainingConfig,
    table: Table = TABLE,
    losses: tuple[Loss, ...] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """Compiles `train_step` for a mesh. It donates the state, and leaves the metrics on every device."""
    return jax.jit(
        partial(train_step, config=config, recipe=recipe, placement=placement(mesh, table), losses=losses),
        in_shardings=(shardings, NamedSharding(mesh, P(AXES))),
        out_shardings=(shardings, NamedSharding(mesh, P())),
        donate_argnums=0,
    )
