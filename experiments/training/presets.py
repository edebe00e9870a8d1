"""Settings of a training run, and the named ones: what `python -m experiments train NAME` begins from."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.harness.settings import to_json
from nemojax.config import PRESETS as MODELS
from nemojax.config import EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig
from nemojax.data.corpus import Filters, Source
from nemojax.data.plan import PlanConfig
from nemojax.data.waveform import RECIPE, WaveformConfig
from nemojax.errors import ConfigError
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.recipe import TrainingConfig

# what may differ when a run goes on: none of it changes what a step computes
FREE = frozenset(
    {"run", "dev", "steps", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch", "workers"}
    | {"stop_after_skipped", "tensorboard", "distributed", "accept_changes"}
)

# what a run's state holds, and can't be changed under it
FIXED = ("model.", "init", "tokenizer", "training.seed", "training.frozen", "training.average", "training.skip_window")


# what a run's settings.json has besides: the settings of the model it began with, and a fingerprint of its data
RECORDED = frozenset({"started", "data"})


@dataclass(frozen=True)
class Experiment:
    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]] = tyro.MISSING
    """Directory of the run; one that was begun there goes on where it was."""
    train: tuple[str, ...] = ()
    """Manifests; MANIFEST=2 has each of its utterances twice in an epoch, MANIFEST=0.5 in every second one."""
    dev: tuple[Path, ...] = ()
    """Manifests whose WER and CER are measured during training, at each of the model's look-aheads."""
    init: Path | None = None
    """A native checkpoint to start from, such as a converted release; its settings replace those of `model`."""
    tokenizer: Path | None = None
    """A SentencePiece model; without one, that of `init`, or one of `model.vocabulary` pieces made of the texts."""
    steps: int = 100_000
    """In all, those of a resumed run included."""
    evaluate_every: int = 2_000
    save_every: int = 1_000
    keep: int = 3
    """Checkpoints: so many of the last, and the one with the best dev WER."""
    dev_utterances: int = 500
    """At most so many of each dev manifest, spread evenly over it."""
    dev_batch: int = 16
    stop_after_skipped: int = 20
    """Steps skipped in a row, for loss or gradient that is not finite or has exploded."""
    workers: int = 2
    """Processes that make batches; 0 makes them between steps."""
    mesh_data: int = -1
    """Devices along which rows are spread and parameters copied; -1 for all that are left."""
    mesh_fsdp: int = 1
    """Devices over which rows and parameters are spread."""
    distributed: bool = False
    """Join the other processes of the job (`jax.distributed`, which knows Slurm's variables)."""
    tensorboard: bool = False
    """Write metrics for TensorBoard too; needs nemojax[tensorboard]."""
    accept_changes: bool = False
    """Go on with a run under settings that change what is computed; they are noted in its metrics."""
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    waveform: WaveformConfig = field(default_factory=WaveformConfig)
    filters: Filters = field(default_factory=Filters)
    plan: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self):
        for name in ("steps", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    def sources(self) -> list[Source]:
        if not self.train:
            raise ConfigError("name the manifests to train on with --train MANIFEST...")
        return [source(text) for text in self.train]

    def to_json(self) -> str:
        return to_json(self)


def source(text: str) -> Source:
    """A manifest with its weight, from MANIFEST or MANIFEST=WEIGHT."""
    path, equals, weight = text.rpartition("=")
    try:
        return Source(Path(path), float(weight)) if equals else Source(Path(text))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        return Source(Path(text))  # an = in a file's name


def changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two runs and matter, by name: what they were and what they are."""
    found = {}
    for name in sorted(set(before) | set(after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= changes(old, new, f"{prefix}{name}.")
        elif old != new and (prefix or name not in FREE):
            found[prefix + name] = (old, new)
    return found


SMALL = ModelConfig(
    features=FeatureConfig(mel_bins=80),
    # it sees too little to be regularised: dropout would take a third of the time
    encoder=EncoderConfig(
        layers=8,
        width=144,
        heads=4,
        feedforward_width=576,
        subsampling_channels=64,
        dropout=0.0,
        attention_dropout=0.0,
    ),
    prediction=PredictionConfig(width=144, layers=1),
    joint=JointConfig(width=144, dropout=0.0),
    vocabulary=256,
)

PRESETS: dict[str, tuple[str, Experiment]] = {
    "family": (
        "The recipe of the released models: the 0.6B model, bfloat16, for accelerators.",
        Experiment(
            model=MODELS["0.6b"],
            training=TrainingConfig(remat=True),
            filters=Filters(max_s=40.0),
            waveform=WaveformConfig(),
        ),
    ),
    "114m": (
        "The same for the family's models of 114M parameters.",
        Experiment(model=MODELS["114m"]),
    ),
    "small": (
        "A model of 4.4M parameters, for two CPU cores.",
        Experiment(
            model=SMALL,
            training=TrainingConfig(
                dtype="float32",
                learning_rate=0.1,  # at most 4e-4: batches are a thousandth of the family's
                warmup_steps=500,
                ctc_weight=0.5,
                average_decay=0.999,
                spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0),
            ),
            waveform=dataclasses.replace(
                RECIPE,
                noise_probability=0.0,
                silence_before_s=(0.0, 0.2),
                silence_after_s=(0.0, 0.2),
                join_probability=0.2,
                join_total_s=8.0,
            ),
            filters=Filters(max_s=17.0),
            plan=PlanConfig(batch_frames=900, bucket_count=5),
            steps=12_000,
            evaluate_every=1_000,
            save_every=500,
            dev_utterances=60,
            workers=1,
        ),
    ),
    "smoke": (
        "A tiny model for a few steps on a CPU: does everything work?",
        Experiment(
            model=dataclasses.replace(MODELS["tiny"], vocabulary=64),
            training=TrainingConfig(dtype="float32", learning_rate=0.1, warmup_steps=20),
            plan=PlanConfig(batch_frames=280, bucket_count=2),
            steps=20,
            evaluate_every=20,
            save_every=10,
            dev_utterances=8,
            dev_batch=4,
            workers=0,
        ),
    ),
}
