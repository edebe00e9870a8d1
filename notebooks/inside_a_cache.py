# %% [markdown]
# # What does a stream remember?
#
# No frame is computed twice: a stream stores what later chunks need of earlier ones. **What does it store, how is it
# used, and can future audio leak into it?** The state of a stream is a pytree, so we can look inside.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import soundfile

import nemojax
from nemojax import streaming
from nemojax.bundled import SMALL
from nemojax.model.attention import chunk_mask, relative_shift
from nemojax.model.parameters import thaw

plt.rcParams |= {"figure.dpi": 90, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
recognizer = nemojax.load()
model, constants, config = thaw(recognizer.model), recognizer.constants, recognizer.config
samples = jnp.asarray(soundfile.read(SMALL / "example.ogg", dtype="float32")[0])

# %% [markdown]
# ## What a stream stores

# %%
state = streaming.init_state(model, constants, batch=1)
block = state.encoder.blocks[0]
parts = {
    "position": state.position,
    "features: raw sample, pre-emphasized overlap": state.features,
    "subsampling: a frame of each strided convolution": state.encoder.subsampling,
    "attention: keys of a block": block.attention.keys,
    "attention: values of a block": block.attention.values,
    "convolution: gated frames of a block": block.convolution,
    "prediction network": state.decoder,
}
for name, part in parts.items():
    leaves = jax.tree.leaves(part)
    shapes = ", ".join(str(tuple(x.shape)) for x in leaves[:3]) + (", ..." if len(leaves) > 3 else "")
    print(f"{name:50s} {sum(x.nbytes for x in leaves) / 1e3:8.1f} kB   {shapes}")
total = sum(x.nbytes for x in jax.tree.leaves(state))
print(f"\none stream, {len(state.encoder.blocks)} blocks: {total / 1e6:.2f} MB, however long it lasts")

# %% [markdown]
# ## How attention uses it
#
# `streaming.encode` encodes the first chunks. The code below repeats the next chunk by hand, to see the attention
# weights of each frame of the chunk over the cache and the chunk, in the first and in the last block, averaged over
# the heads.


# %%
left = config.encoder.left_context_frames


def in_order(ring, length):
    """Returns the cached frames of one stream, [C, H, K], oldest first: frame f lies in slot f mod S of a ring."""
    return jnp.swapaxes(ring.read(length, left).frames[0], 0, 1)


def attention_weights(attention, x, mask, cache, positions, chunk):
    """Returns the weights of one stream, [H, T, C + T], by the formula of `Attention.step`."""
    heads, frames = attention.content_bias.shape, x.shape[1]
    query = attention.query(x).reshape(frames, *heads)
    keys = jnp.concatenate([in_order(cache.keys, cache.length), attention.key(x).reshape(frames, *heads)])
    near = (positions.shape[0] - left + 1) // 2 - frames
    positions = positions[near : positions.shape[0] - near]
    content = jnp.einsum("qhk,chk->hqc", query + attention.content_bias[...][None], keys)
    position = jnp.einsum("qhk,rhk->hqr", query + attention.position_bias[...][None], positions)
    score = (content + relative_shift(position, left + frames)) * heads[1] ** -0.5
    valid = jnp.concatenate([jnp.arange(left) >= left - cache.length[0], mask[0]])
    visible = jnp.asarray(chunk_mask(frames, left, chunk)) & valid[None]
    return jax.nn.softmax(jnp.where(visible[None], score, -1e30), axis=-1)


def check(attention, weights, x, mask, cache, positions, chunk):
    """Asserts that `Attention.step` uses these weights."""
    values = attention.value(x).reshape(-1, *attention.content_bias.shape)
    values = jnp.concatenate([in_order(cache.values, cache.length), values])
    mixed = jnp.einsum("hqc,chk->qhk", weights, values)
    expected, _ = attention.step(x, mask, cache, positions, chunk)
    np.testing.assert_allclose(attention.output(mixed.reshape(1, len(mixed), -1)), expected, atol=1e-4)


def look(lookahead, chunks):
    """Returns the weights of the first and the last block, for the chunk after `chunks` chunks."""
    state, chunk = streaming.init_state(model, constants, 1), lookahead + 1
    segments = streaming.segments_of(samples[None], jnp.array([len(samples)]), lookahead, 1, config)
    for index in range(chunks):
        *_, state = streaming.encode(
            model, constants, state, jax.tree.map(lambda x, i=index: x[i], segments), lookahead
        )
    log_mel, mask, _ = streaming.log_mel_segment(config, state, jax.tree.map(lambda x: x[chunks], segments))
    x, mask, _ = model.encoder.subsampling.step(log_mel, mask, state.encoder.subsampling)
    if config.encoder.scale_input:
        x = x * jnp.sqrt(jnp.float32(config.encoder.width))
    weights = []
    for block, cache, positions in zip(model.encoder.blocks, state.encoder.blocks, constants.positions, strict=True):
        y = x + 0.5 * block.feedforward1(block.norm_feedforward1(x))
        valid = jnp.where(mask[..., None], block.norm_attention(y), 0.0)
        weights.append(attention_weights(block.attention, valid, mask, cache.attention, positions, chunk))
        check(block.attention, weights[-1], valid, mask, cache.attention, positions, chunk)
        x, _ = block.step(x, mask, cache, positions, chunk)
    return np.asarray(weights[0].mean(0)), np.asarray(weights[-1].mean(0))


figure, panels = plt.subplots(3, 2, figsize=(10, 6.4), sharex=True, layout="constrained")
for row, chunks in zip(panels, (1, 3, 9), strict=True):
    for axes, weights, name in zip(row, look(6, chunks), ("first block", "last block"), strict=True):
        extent = (-left, 7, 7, 0)
        axes.imshow(weights, aspect="auto", extent=extent, cmap="viridis", vmin=0, vmax=0.15, interpolation="nearest")
        axes.axvline(0, color="white", linewidth=1)
        axes.set_title(f"{name}, after {chunks} chunk{'s' * (chunks > 1)}", fontsize=10)
    row[0].set_ylabel("frame of the chunk")
for axes in panels[-1]:
    axes.set_xlabel("key: cached frames | frames of the chunk")
plt.show()
recent = np.mean([w[:, left - 13 :].sum(1).mean() for w in look(6, 9)])
print(f"after 9 chunks, {100 * recent:.0f} % of the weight is on the chunk and the 13 frames (1 s) before it")

# %% [markdown]
# The cache starts empty, and empty entries get no weight (dark, left). Each chunk adds its frames. The frames of a
# chunk attend to the whole chunk (right of the line) and to nothing after it.
#
# ## No future audio
#
# If sample n can change frame t, the derivative of the frame with respect to the sample is not zero. If the model
# keeps its schedule, this derivative is exactly zero after the last sample of the frame's chunk, and not zero just
# before it.


# %%
def reach(lookahead, frame, seconds=3.0):
    """Returns the magnitude of d(frame) / d(sample), for each sample."""
    audio = samples[None, : int(16_000 * seconds)]

    def encoded(x):
        segments = streaming.segments_of(x, jnp.array([x.shape[1]]), lookahead, 70 // (lookahead + 1), config)
        state, segment = streaming.init_state(model, constants, 1), jax.tree.map(lambda y: y[0], segments)
        return streaming.encode(model, constants, state, segment, lookahead)[0][0, frame]

    direction = jax.random.normal(jax.random.key(0), (config.encoder.width,))
    return np.abs(np.asarray(jax.grad(lambda x: encoded(x) @ direction)(audio)[0]))


figure, panels = plt.subplots(2, 1, figsize=(10, 4.6), sharex=True, layout="constrained")
for axes, r in zip(panels, (0, 6), strict=True):
    frame, size = 16, reach(r, 16)
    end = (frame // (r + 1) + 1) * config.chunk_samples(r) - config.history_samples  # samples that the chunk needs
    last = int(np.flatnonzero(size)[-1])
    coarse = size[: len(size) // 80 * 80].reshape(-1, 80).max(1)
    axes.semilogy(np.arange(len(coarse)) * 80 / 16_000, np.maximum(coarse, 1e-9), linewidth=0.8)
    axes.axvspan(frame * 0.08, (frame + 1) * 0.08, color="C1", alpha=0.3, label="the frame")
    axes.axvline(end / 16_000, color="red", linewidth=1, label="the last sample of its chunk")
    axes.set(ylabel="|d frame / d sample|", title=f"look-ahead {r}")
    axes.legend(loc="upper right", fontsize=8)
    print(f"look-ahead {r}: the chunk ends with sample {end - 1}; the last sample with a gradient is {last}")
panels[-1].set_xlabel("time in s")
plt.show()

# %% [markdown]
# The window of the spectrogram is zero at the very last sample, so that sample has no gradient. The sample before it
# has one, and no later sample does.
#
# ## The answer
#
# A stream of this model stores 0.9 MB, almost all of it keys and values, and its size does not grow with time.
# Attention uses the whole filled part of the cache, and puts the largest weight on the last second. To the sample, a
# frame depends on nothing after its chunk. That is why the text of a chunk can be final.
