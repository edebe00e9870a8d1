"""What a run would do and how much memory its step takes, from shapes alone: `--dry` reads no weights and no audio.

The memory is what XLA assigns to the compiled step (`memory_analysis`): its arguments, which are the state and a
batch, its outputs that do not reuse an argument's memory, and temporary buffers. On an accelerator the step itself is
compiled. On a CPU it is compiled for models of fewer blocks, which all take the same, and the bytes of each further
block are added. Its barriers are kept there, without which XLA undoes `remat`. A CPU computes products of bfloat16 in
float32, so a GPU takes less.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.training.opening import opening
from experiments.training.planning import plan_batches
from experiments.training.presets import Experiment
from experiments.training.start import check_trained, check_types, read_tokenizer
from nemojax import bundled, checkpoint, hub
from nemojax.config import ModelConfig
from nemojax.data.buckets import Bucket
from nemojax.data.train_tokenizer import texts_of, train
from nemojax.model.parameters import abstract_model
from nemojax.text.tokenizer import Tokenizer
from nemojax.training import sharding
from nemojax.training.forward import Batch
from nemojax.training.new_vocabulary import BY_LABEL
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import TrainState, init, partition
from nemojax.training.step import train_step_jit

BLOCKS = (3, 6)  # of the models that stand for deeper ones on a CPU
KEEP_REMAT = {"xla_disable_hlo_passes": "cse_barrier_expander"}  # a CPU's compiler drops the barriers of `remat` early
DEFAULT_SHARE, LARGEST_SHARE = 0.75, 0.95  # of a card's memory: what jax takes by default, and at most


class Memory(NamedTuple):
    """The bytes of a step on one device; `outputs` are those that do not reuse the memory of an argument."""

    arguments: int
    outputs: int
    temporary: int


def abstract_state(config: ModelConfig, recipe: TrainingConfig) -> TrainState:
    """Returns the shapes of a run's state."""
    state: TrainState = jax.eval_shape(partial(init, recipe=recipe), abstract_model(config))
    return state


def compiled_memory(config: ModelConfig, recipe: TrainingConfig, bucket: Bucket, mesh: Mesh | None) -> Memory:
    """Compiles the step for a shape of batch, and returns its memory."""
    frames, labels, rows = bucket
    array: Any = jax.ShapeDtypeStruct
    samples = array((rows, frames * config.frame_samples), jnp.float32)
    batch = Batch(samples, array((rows,), jnp.int32), array((rows, labels), jnp.int32), array((rows,), jnp.int32))
    state = abstract_state(config, recipe)
    if mesh is None:
        lowered = train_step_jit.lower(state, batch, config=config, recipe=recipe)
    else:
        step: Any = sharding.sharded_step(mesh, sharding.state_shardings(state, mesh), config, recipe)
        lowered = step.lower(state, batch)
    options: Any = KEEP_REMAT if jax.default_backend() == "cpu" and recipe.remat else None
    analysis: Any = lowered.compile(compiler_options=options).memory_analysis()
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return Memory(analysis.argument_size_in_bytes, outputs, analysis.temp_size_in_bytes)


def step_memory(config: ModelConfig, recipe: TrainingConfig, bucket: Bucket, mesh: Mesh | None = None) -> Memory:
    """Returns the memory of a step, see the module's description."""
    few, more = BLOCKS
    if jax.default_backend() != "cpu" or config.encoder.layers <= more or not _blocks_alike(config, recipe):
        return compiled_memory(config, recipe, bucket, mesh)
    smaller, larger = (compiled_memory(_with_blocks(config, count), recipe, bucket, mesh) for count in BLOCKS)
    further = (config.encoder.layers - more) / (more - few)
    return Memory(*(round(y + further * (y - x)) for x, y in zip(smaller, larger, strict=True)))


def _with_blocks(config: ModelConfig, count: int) -> ModelConfig:
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=count))


def _blocks_alike(config: ModelConfig, recipe: TrainingConfig) -> bool:
    """Returns whether the same is trained in each encoder block; a pattern may name some of them."""
    trained, _ = partition(abstract_state(config, recipe).parameters, recipe)
    parts = [name.split(".", 3) for name in trained if name.startswith("encoder.blocks.")]
    blocks = [{rest for _, _, number, rest in parts if number == str(index)} for index in range(config.encoder.layers)]
    return all(block == blocks[0] for block in blocks)


def largest(buckets: tuple[Bucket, ...]) -> Bucket:
    """Returns the shape with most frames, padding included; of equal ones that with most labels."""
    return max(buckets, key=lambda bucket: (bucket.frames * bucket.batch, bucket.labels))


def verdict(memory: Memory, card_gb: float) -> tuple[str, bool]:
    """Returns whether a step fits a card, in a sentence and as a value."""
    total_gb = sum(memory) / 1e9
    places = 1 if total_gb >= 1 else 3
    gb = [f"{x / 1e9:.{places}f} GB" for x in (sum(memory), memory.arguments, memory.outputs + memory.temporary)]
    parts = f"memory of a step: {gb[0]}, of which {gb[1]} are its state and {gb[2]} temporary"
    if total_gb <= DEFAULT_SHARE * card_gb:
        return f"{parts}; it fits a card of {card_gb:g} GB", True
    if total_gb <= LARGEST_SHARE * card_gb:
        setting = f"XLA_PYTHON_CLIENT_MEM_FRACTION={LARGEST_SHARE:g}"
        return (
            f"{parts}; it fits a card of {card_gb:g} GB with {setting}: jax takes {DEFAULT_SHARE:.0%} by itself",
            True,
        )
    advice = "set a lower --plan.batch-frames, a higher --training.accumulation, --training.remat or --lora 16"
    return f"{parts}; it does not fit a card of {card_gb:g} GB: {advice}", False


def dry_run(experiment: Experiment, log: Callable[[str], None] = print) -> int:
    """Reports what a run would do, and its memory. Returns 0, or 1 where it does not fit the card.

    Raises:
      NemojaxError: as the run itself would, except for what is wrong with weights and audio.
    """
    experiment = experiment.resolved()
    config, tokenizer, filters, drawn = _model(experiment, log)
    experiment = dataclasses.replace(experiment, filters=filters)
    recipe = experiment.training
    state = abstract_state(config, recipe)
    check_trained(drawn, state.parameters, recipe)
    plan = plan_batches(experiment, Tokenizer(tokenizer), config, log)
    mesh = None if jax.device_count() == 1 else sharding.make_mesh(experiment.mesh_data, experiment.mesh_fsdp)
    for line in opening(experiment, config, plan, state.parameters, mesh):
        log(line)
    bucket = largest(plan.buckets)
    log(
        f"the step of {bucket.batch} rows, {bucket.frames} frames and {bucket.labels} labels is compiled for its memory"
    )
    sentence, fits = verdict(step_memory(config, recipe, bucket, mesh), experiment.card_gb)
    log(sentence)
    return 0 if fits else 1


def _model(experiment: Experiment, log: Callable[[str], None]) -> tuple[ModelConfig, bytes, Any, tuple[str, ...]]:
    """Returns settings, tokenizer and filters of a run, and what is drawn again; without weights and downloads."""
    given = read_tokenizer(experiment.tokenizer) if experiment.tokenizer is not None else None
    config, filters = experiment.model, experiment.filters
    if experiment.init is not None and hub.is_here(experiment.init):
        config, saved, _ = checkpoint.read_settings(experiment.init)
        check_types(experiment.init)
    elif experiment.init is not None:
        saved = (bundled.SMALL / checkpoint.TOKENIZER).read_bytes()
        filters = dataclasses.replace(filters, keep_out_of_vocabulary=True)
        log(
            f"{experiment.init} is not on this machine: its settings are taken to be those of --model, and labels are "
            "counted with the small model's tokenizer"
        )
    else:
        sources = [source.manifest for source in experiment.sources()]
        saved = given if given is not None else train(texts_of(sources), config.vocabulary)
    if given is not None:
        config = dataclasses.replace(config, vocabulary=Tokenizer(given).size)
    drawn = BY_LABEL if experiment.init is not None and given is not None and given != saved else ()
    return config, given if given is not None else saved, filters, drawn
