"""Training as pure functions: a state and a batch to the next state.

The forward pass is that of streaming: a whole utterance from zeros, its samples preceded by the virtual
history, through `streaming.log_mel_segment` and the encoder's own step. The look-ahead is traced, so one compilation
per shape of batch serves them all. All randomness is a function of the seed and the step's number: a run
goes on from a state as if it had never stopped.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, UInt

from nemojax import streaming
from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.model.layers import split_key
from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.streaming import Segment
from nemojax.training import augment
from nemojax.training.ctc import ctc_losses
from nemojax.training.recipe import TrainingConfig, noam, optimizer
from nemojax.training.rnnt_loss import reduce_losses, rnnt_loss

Parameters = dict[str, Array]  # by path, as `named_parameters` has them


class Batch(NamedTuple):
    """The rows of a step. A row of no audio is filler: its sample length is 0, and it counts nowhere.

    `samples` are what a stream's first segment holds: `config.history_samples` of virtual history, then the
    utterance. N is a whole number of encoder frames (to be chunks at every look-ahead, as the data pipeline
    makes it). `sample_lengths` include the history. What lies beyond lengths changes nothing.
    """

    samples: Float[Array, "B N"]
    sample_lengths: Int[Array, " B"]
    labels: Int[Array, "B U"]
    label_lengths: Int[Array, " B"]


class TrainState(NamedTuple):
    """All that a run remembers. `step` counts calls, those skipped included, so it is also the data's position."""

    step: Int[Array, ""]
    parameters: Parameters  # float32
    average: Parameters  # of those that are not frozen, over the last updates; empty without `average_decay`
    optimiser: Any  # optax's state, of the parameters that are not frozen
    skipped: Int[Array, ""]  # steps in all
    skipped_in_a_row: Int[Array, ""]
    norms: Float[Array, " window"]  # gradient norms of the last steps that were not skipped; inf where there was none
    seed: UInt[Array, ""]


class Placement(NamedTuple):
    """How a step is spread over devices, as `sharding` makes it; by default it is not."""

    gather: Callable[[Parameters], Parameters] = lambda parameters: parameters  # each whole on every device
    # function(rows, shared, key), of arrays with and without a leading axis B: each device computes its own rows
    by_rows: Callable[[Callable], Callable] = lambda function: function


ONE_DEVICE = Placement()


class Counts(NamedTuple):
    """What a loss is of: rows that are not filler, their encoder frames, their labels."""

    rows: Int[Array, ""]
    frames: Int[Array, ""]
    labels: Int[Array, ""]


class Metrics(NamedTuple):
    loss: Float[Array, ""]  # mean over rows, with FastEmit's factor and the auxiliary loss
    gradient_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]
    lookahead: Int[Array, ""]
    skipped: Bool[Array, ""]
    counts: Counts


def partition(parameters: Mapping[str, Any], frozen: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters to train, and those whose path matches one of the patterns.

    Raises:
      ConfigError: a pattern matches nothing, or all is frozen.
    """
    for pattern in frozen:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ConfigError(f"frozen: no parameter's path matches {pattern!r}; paths are like {min(parameters)!r}")
    still = {name for name in parameters if any(fnmatchcase(name, pattern) for pattern in frozen)}
    if len(still) == len(parameters):
        raise ConfigError(f"frozen: {', '.join(frozen)} leave no parameter to train")
    pick = lambda keep: {name: value for name, value in parameters.items() if (name in still) == keep}
    return pick(False), pick(True)


def init(model: Transducer, recipe: TrainingConfig) -> TrainState:
    """The state of a run that starts from a model's weights, which are copied, in float32."""
    named = named_parameters(model)
    parameters = {name: jnp.array(value, jnp.float32, copy=True) for name, value in named.items()}
    trained, _ = partition(parameters, recipe.frozen)
    zero = lambda: jnp.zeros((), jnp.int32)  # each its own buffer: a step donates them all
    return TrainState(
        zero(),
        parameters,
        {name: jnp.array(p, copy=True) for name, p in trained.items()} if recipe.average_decay else {},
        optimizer(model.config, recipe).init(trained),
        zero(),
        zero(),
        jnp.full(recipe.skip_window, jnp.inf, jnp.float32),
        jnp.asarray(recipe.seed, jnp.uint32),
    )


def model_of(state: TrainState, config: ModelConfig) -> Transducer:
    """The model as it is evaluated and kept: of averaged weights, where an average is taken."""
    return fill(config, state.parameters | state.average)


def averaged(average: Parameters, trained: Parameters, updates: Int[Array, ""], decay: float) -> Parameters:
    """The running average after an update; early on it forgets faster, so that it does not hold on to the start."""
    kept = jnp.minimum(decay, (1 + updates) / (10 + updates))
    return {name: kept * average[name] + (1 - kept) * trained[name] for name in average}


def loss(
    model: Transducer,
    batch: Batch,
    lookahead: int | Int[Array, ""],
    key: Array | None,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
) -> tuple[Float[Array, ""], Counts]:
    """The mean RNN-T loss over the rows that are not filler; without a key, without dropout and augmentation.

    Products are computed in the type of the model's kernels.
    """
    config, (rows, samples) = model.config, batch.samples.shape
    if samples == 0 or samples % config.frame_samples:
        raise ValueError(f"a batch must hold whole encoder frames of {config.frame_samples} samples, not {samples}")
    dither_key, mask_key, encoder_key, prediction_key, joint_key = split_key(key, 5)
    heard = augment.dither(batch.samples, recipe.dither, dither_key)
    segment = Segment(heard, batch.sample_lengths, jnp.ones(rows, bool), jnp.zeros(rows, bool))
    constants = streaming.prepare(model)
    state = streaming.init_state(model, constants, rows)
    listen = placement.by_rows(lambda rows, shared, key: streaming.log_mel_segment(config, *rows))
    log_mel, mask, _ = listen((state, segment), (), None)
    log_mel = augment.spec_augment(log_mel, mask, recipe.spec_augment, mask_key)
    with jax.named_scope("encoder"):
        encoded, mask, _ = model.encoder.step(
            log_mel, mask, state.encoder, constants.positions, lookahead + 1, encoder_key, remat=recipe.remat
        )
    frame_lengths = mask.sum(1)
    with jax.named_scope("prediction"):
        predicted = model.prediction.sequence(batch.labels, prediction_key)
    output, dropout = model.joint.output, config.joint.dropout if key is not None else 0.0
    assert output.bias is not None  # it always has one

    def row_losses(rows, shared, key):
        joint, lattice = rows
        settings: dict[str, Any] = {"blank": config.blank, "fastemit": recipe.fastemit, "dropout": dropout, "key": key}
        losses = rnnt_loss(*joint, *shared, *lattice, **settings, reduction="none")
        if not recipe.ctc_weight:
            return losses
        (encoded, _), (kernel, bias), (labels, frames, counts) = joint, shared, lattice
        return losses + recipe.ctc_weight * ctc_losses(encoded, kernel, bias, labels, frames, counts, config.blank)

    with jax.named_scope("loss"):
        joint = model.joint.encoder(encoded), model.joint.prediction(predicted)
        lattice = batch.labels, frame_lengths, batch.label_lengths
        weights = output.kernel[...], output.bias[...]
        losses = placement.by_rows(row_losses)((joint, lattice), weights, joint_key)
        value = reduce_losses(losses, frame_lengths, batch.label_lengths, "mean_batch")
    filled = frame_lengths > 0
    return value, Counts(filled.sum(), frame_lengths.sum(), (batch.label_lengths * filled).sum())


def narrow(parameters: Parameters, dtype: str) -> Parameters:
    """Kernels in the type in which products are computed; the rest stays in float32."""
    return {name: p.astype(dtype) if name.endswith("kernel") else p for name, p in parameters.items()}


def value_and_gradient(
    parameters: Parameters,
    batch: Batch,
    lookahead: int | Int[Array, ""],
    key: Array | None,
    config: ModelConfig,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
) -> tuple[tuple[Float[Array, ""], Counts], Parameters]:
    """The loss and its gradient with respect to what is not frozen.

    With `accumulation`, part i holds rows i, i + accumulation, ...; the mean is over all rows of the batch,
    however filler is spread, so the result is that of the whole batch (but for what is random).
    """
    trained, frozen = partition(parameters, recipe.frozen)

    def part_loss(trained, batch, key):
        whole = placement.gather(narrow(trained | frozen, recipe.dtype))
        return loss(fill(config, whole), batch, lookahead, key, recipe, placement)

    compute = jax.value_and_grad(part_loss, has_aux=True)
    if recipe.accumulation == 1:
        return compute(trained, batch, key)
    return _accumulate(lambda batch, key: compute(trained, batch, key), batch, key, recipe.accumulation)


def _accumulate(compute: Callable[[Batch, Array | None], Any], batch: Batch, key: Array | None, parts: int) -> Any:
    if batch.samples.shape[0] % parts:
        raise ValueError(f"a batch of {batch.samples.shape[0]} rows can't be computed in {parts} equal parts")
    # every device has rows of every part: a row's place in the batch says where it is
    split_rows = lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
    keys = None if key is None else jax.random.split(key, parts)

    def add(total, inputs):
        (value, counts), gradient = compute(*inputs)
        weigh = lambda x: x * counts.rows
        part = (weigh(value), counts), jax.tree.map(weigh, gradient)
        return jax.tree.map(jnp.add, total, part), None

    pieces = jax.tree.map(split_rows, batch)
    first = jax.tree.map(lambda x: x[0], (pieces, keys))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute, *first))
    ((value, counts), gradient), _ = jax.lax.scan(add, zeros, (pieces, keys))
    mean = lambda x: x / jnp.maximum(counts.rows, 1)
    return (mean(value), counts), jax.tree.map(mean, gradient)


def draw_lookahead(key: Array, config: ModelConfig, recipe: TrainingConfig) -> Int[Array, ""]:
    """One of the model's look-aheads."""
    lookaheads, probabilities = config.encoder.lookaheads, recipe.lookahead_probabilities
    if probabilities and len(probabilities) != len(lookaheads):
        raise ConfigError(
            f"lookahead_probabilities: {len(probabilities)} for the {len(lookaheads)} look-aheads {lookaheads}"
        )
    weights = jnp.array(probabilities or [1.0] * len(lookaheads))
    return jax.random.choice(key, jnp.array(lookaheads, jnp.int32), p=weights / weights.sum())


def train_step(
    state: TrainState,
    batch: Batch,
    config: ModelConfig,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
) -> tuple[TrainState, Metrics]:
    """One update, or none where the loss or the gradient is not finite, or the gradient's norm is exploded.

    A skipped step changes `step` and the two counters of skipped steps alone.
    """
    lookahead_key, key = jax.random.split(jax.random.fold_in(jax.random.key(state.seed), state.step))
    lookahead = draw_lookahead(lookahead_key, config, recipe)
    (value, counts), gradient = value_and_gradient(state.parameters, batch, lookahead, key, config, recipe, placement)
    norm = optax.global_norm(gradient)
    median = jnp.sort(state.norms)[recipe.skip_window // 2]
    limit = recipe.skip_norm * jnp.maximum(median, recipe.clip_norm)
    good = jnp.isfinite(value) & jnp.isfinite(norm) & (norm <= limit)

    updates = state.step - state.skipped
    trained, frozen = partition(state.parameters, recipe.frozen)
    update, new_optimiser = optimizer(config, recipe).update(gradient, state.optimiser, trained)
    updated = optax.apply_updates(trained, update)
    average = averaged(state.average, updated, updates, recipe.average_decay)
    new = updated, average, new_optimiser, state.norms.at[updates % recipe.skip_window].set(norm)
    old = trained, state.average, state.optimiser, state.norms
    trained, average, opt, norms = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
    after = TrainState(
        state.step + 1,
        trained | frozen,
        average,
        opt,
        state.skipped + ~good,
        jnp.where(good, 0, state.skipped_in_a_row + 1),
        norms,
        state.seed,
    )
    return after, Metrics(value, norm, noam(recipe, config.encoder.width)(updates), lookahead, ~good, counts)


train_step_jit = jax.jit(train_step, static_argnames=("config", "recipe"), donate_argnames="state")
