import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from nemojax.config import PRESETS
from nemojax.errors import ConfigError
from nemojax.model.parameters import abstract_model
from nemojax.training import sharding
from nemojax.training.forward import Batch
from nemojax.training.losses import Loss
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import init
from tests.helpers.messages import whole

TIMEOUT_S = 3600  # not a measure: only ends a program that hangs


def program(*arguments: str, devices: int = 1) -> subprocess.Popen:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.training.sharded", *arguments]
    root = Path(__file__).parents[2]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True)


def output_of(process: subprocess.Popen) -> str:
    try:
        out, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return out.splitlines()[-1]


def test_rows_and_parameters_on_eight_devices():
    """Each device computes its own rows with draws of its own, on parameters that come whole."""
    assert output_of(program("parts", devices=8)) == "parts"


@pytest.mark.slow
def test_a_mesh_of_any_shape_equals_one_device():
    """8 virtual devices; states and metrics after two steps, with dropout, masks and accumulation."""
    assert output_of(program("devices", devices=8)) == "equal"


@pytest.mark.slow
def test_two_processes_equal_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [program("process", str(index), "2", port) for index in range(2)]
    try:
        first, second = (json.loads(output_of(process)) for process in processes)
    finally:
        for process in processes:
            process.kill()
    alone = json.loads(output_of(program("process", "0", "1", "0")))
    assert first == second and first[0] != first[1]
    np.testing.assert_allclose(first, alone, rtol=1e-5)


@pytest.fixture(scope="module")
def abstract_state():
    model = abstract_model(PRESETS["114m"])
    return jax.eval_shape(lambda model: init(model, TrainingConfig(frozen=("joint.*",))), model)


def test_the_table(abstract_state):
    """All large parameters are spread, and the optimizer's state of each with it."""
    shardings = sharding.state_shardings(abstract_state, sharding.make_mesh())
    specs = {name: s.spec for name, s in shardings.parameters.items()}
    whole = [name for name, leaf in abstract_state.parameters.items() if specs[name] == P() and leaf.size > 10_000]
    assert not whole
    assert specs["encoder.blocks.0.norm_out.scale"] == P() and specs["joint.output.kernel"] == P("fsdp", None)
    found = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shardings.optimizer):
        keys = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        assert leaf.spec == (specs[keys[0]] if keys else P())
        found += bool(keys)
    assert found == 2 * sum(not name.startswith("joint.") for name in specs)  # two moments of what is trained


def test_sizes_that_do_not_fit(abstract_state):
    mesh = jax.sharding.AbstractMesh((1, 7), sharding.AXES)
    with pytest.raises(ConfigError, match=r"can't be spread .* over fsdp=7; choose another size"):
        sharding.state_shardings(abstract_state, mesh)
    for data, fsdp in ((3, 5), (-1, 0), (-1, -1), (-1, 2), (-2, -1)):
        with pytest.raises(ConfigError, match=whole(f"a mesh of data={data} and fsdp={fsdp} does not fit 1 devices")):
            sharding.make_mesh(data, fsdp)


def test_a_table_of_ones_own():
    table = (("joint.*", P("data")), *sharding.TABLE)
    assert sharding.parameter_spec("joint.output.kernel", table) == P("data")
    assert sharding.parameter_spec("encoder.blocks.0.norm_out.scale", table) == P()


def test_a_sharded_step_minimizes_the_losses_that_it_is_given():
    config, recipe, mesh = PRESETS["tiny"], TrainingConfig(), sharding.make_mesh()
    own = Loss("own", 1.0, lambda model, forward, batch, key, placement: jnp.zeros(len(batch.labels)))
    state = jax.eval_shape(lambda model: init(model, recipe), abstract_model(config))
    step = sharding.sharded_step(mesh, sharding.state_shardings(state, mesh), config, recipe, losses=(own,))
    shape = jax.ShapeDtypeStruct
    lengths = shape((2,), jnp.int32)
    batch = Batch(shape((2, 28 * config.frame_samples), jnp.float32), lengths, shape((2, 8), jnp.int32), lengths)
    assert list(jax.eval_shape(step, state, batch)[1].losses) == ["own"]
