import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.errors import ConfigError
from nemojax.training import augment
from nemojax.training.augment import SpecAugmentConfig

FRAMES, BINS = 407, 128
FIRST = 7  # valid frame, as in a segment that begins with the history
LENGTHS = np.array([400, 100, 19, 0])


def masked(config, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which values are replaced, [rows, 4, F, M], and which frames are valid, [4, F]."""
    index = np.arange(FRAMES)[None]
    valid = (index >= FIRST) & (index < FIRST + LENGTHS[:, None])
    log_mel = jnp.ones((4, FRAMES, BINS))
    once = lambda key: augment.spec_augment(log_mel, jnp.asarray(valid), config, key)
    out = np.asarray(jax.jit(jax.vmap(once))(jax.random.split(jax.random.key(seed), rows)))
    assert np.isin(out, [1.0, config.value]).all()
    return out != 1.0, valid


def runs(flags: np.ndarray) -> list[int]:
    """Lengths of the runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_a_time_mask_is_of_each_rows_valid_frames():
    hit, valid = masked(SpecAugmentConfig(frequency_masks=0, time_masks=1))
    assert (hit.all(-1) == hit.any(-1)).all()  # all bins or none
    hit = hit.any(-1)
    assert not hit[:, ~valid].any()
    for row, length in enumerate(LENGTHS):
        lengths = [runs(h) for h in hit[:, row]]
        assert all(len(r) <= 1 for r in lengths)
        widths = {r[0] if r else 0 for r in lengths}
        widest = -(-length // 20)  # 5 %, and narrower than it where that is a whole number
        assert widths == set(range(max(1, widest))), (length, widths)
    where = hit[:, 0, FIRST : FIRST + 400].any(0)
    assert where[:40].any() and where[-40:].any() and where.mean() > 0.9


def test_a_frequency_mask_is_of_all_frames():
    hit, _ = masked(SpecAugmentConfig(frequency_masks=1, time_masks=0))
    assert (hit.all(2) == hit.any(2)).all()  # all frames or none
    hit = hit.any(2).reshape(-1, BINS)
    assert all(len(runs(h)) <= 1 for h in hit)
    assert {sum(h) for h in hit} == set(range(27))
    assert hit.any(0)[:-1].all() and not (hit == hit[:1]).all()  # a start is below where the last mask would fit


def test_a_band_is_narrower_than_all_bins():
    ones, mask, config = jnp.ones((1, 2, 4)), jnp.ones((1, 2), bool), SpecAugmentConfig(frequency_masks=1, time_masks=0)
    once = jax.vmap(lambda key: augment.spec_augment(ones, mask, config, key))
    left = np.asarray(once(jax.random.split(jax.random.key(0), 100)))[:, 0, 0].sum(1)
    assert set(left) == {1, 2, 3, 4}


def test_counts():
    config = SpecAugmentConfig()
    hit, _ = masked(config)
    bands, spans = hit[:, 0].all(1), hit[:, 0].all(2)
    assert max(len(runs(h)) for h in bands) == config.frequency_masks
    assert 5 < max(len(runs(h)) for h in spans) <= config.time_masks
    # widths are uniform: ten of 9.5 frames on average, less where they overlap
    assert 60 < spans.sum(1).mean() < 95 and 20 < bands.sum(1).mean() < 26


def test_determinism_and_value():
    config = SpecAugmentConfig(value=-3.0)
    first, again, other = masked(config, 2)[0], masked(config, 2)[0], masked(config, 2, seed=1)[0]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and (first[0] != first[1]).any() and (first[:, 0] != first[:, 1]).any()


def test_padding_does_not_move_masks():
    """A row's masks are those of its valid frames, however long the batch is."""
    config, mask = SpecAugmentConfig(frequency_masks=0), jnp.arange(200)[None] < 80
    short = augment.spec_augment(jnp.ones((1, 200, 4)), mask, config, jax.random.key(0))
    long = augment.spec_augment(jnp.ones((1, 300, 4)), jnp.pad(mask, ((0, 0), (0, 100))), config, jax.random.key(0))
    np.testing.assert_array_equal(short, long[:, :200])
    assert not short.all() and long[:, 80:].all()


def test_no_key_is_no_augmentation():
    x = jnp.ones((1, 8, 4))
    assert augment.spec_augment(x, jnp.ones((1, 8), bool), SpecAugmentConfig(), None) is x
    assert augment.dither(x[0], 1e-5, None) is not None and (augment.dither(x[0], 1e-5, None) == 1).all()


def test_dither():
    samples = jnp.zeros((2, 10_000))
    noisy = augment.dither(samples, 1e-3, jax.random.key(0))
    np.testing.assert_allclose(noisy.std(1), 1e-3, rtol=0.05)
    assert augment.dither(samples, 0.0, jax.random.key(0)) is samples


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"time_width": 1.5}, "time_width must be between 0 and 1"),
        ({"time_width": -0.1}, "time_width must be between 0 and 1"),
        ({"time_masks": -1}, "time_masks must be at least 0"),
        ({"frequency_masks": -1}, "frequency_masks must be at least 0"),
        ({"frequency_width_bins": -1}, "frequency_width_bins must be at least 0"),
    ],
)
def test_wrong_settings(settings, message):
    SpecAugmentConfig(0, 0, 0, 1.0)
    SpecAugmentConfig(time_width=0.0)
    with pytest.raises(ConfigError, match=message):
        SpecAugmentConfig(**settings)
