"""Settings of a training run, and the presets that `python -m experiments train PRESET` starts from."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.harness.settings import to_json
from experiments.training.trackers import Service
from nemojax.config import PRESETS as MODELS
from nemojax.config import EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig
from nemojax.data.corpus import Filters, Source
from nemojax.data.plan import PlanConfig
from nemojax.data.waveform import RECIPE, WaveformConfig
from nemojax.errors import ConfigError
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.recipe import TrainingConfig

# settings that may change when a run is resumed, because no step computes anything else with them
FREE = frozenset(
    {"run", "dev", "steps", "patience", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch"}
    | {"workers", "stop_after_skipped", "track", "tensorboard", "log_every_s", "distributed", "accept_changes"}
)

# settings that can't change when a run is resumed, because its state depends on them
FIXED = (
    "model.",
    "init",
    "tokenizer",
    "training.seed",
    "training.frozen",
    "training.train_only",
    "training.average",
    "training.skip_window",
)

# entries of settings.json beside the settings: the settings of the model that the run started with, a fingerprint of
# its data, and its losses if `Run` was given any
RECORDED = frozenset({"started", "data", "losses"})

# settings that were renamed: former names of flags, and groups with former names in a settings.json
FORMER_FLAGS = {
    "--filters.keep-unspelled": "--filters.keep-out-of-vocabulary",
    "--filters.no-keep-unspelled": "--filters.no-keep-out-of-vocabulary",
    "--waveform.noise-colour": "--waveform.noise-color",
}
# flags of settings inside a group that have a name of their own too
SHORT_FLAGS = {"--train-only": "--training.train-only"}
FORMER_NAMES = {"filters": Filters.FORMER_NAMES, "waveform": WaveformConfig.FORMER_NAMES}


@dataclass(frozen=True)
class Experiment:
    """Settings of a training run."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]] = tyro.MISSING
    """Directory of the run; a run that was started there is resumed."""
    train: tuple[str, ...] = ()
    """Manifests. MANIFEST=2 repeats each of its utterances twice in an epoch, MANIFEST=0.5 once in two epochs."""
    dev: tuple[Path, ...] = ()
    """Manifests whose WER and CER are measured during training, at each of the model's look-aheads."""
    init: Path | None = None
    """A native checkpoint to start from, or a name on the hub, which is converted once into the user's cache; its
    settings replace those of `model`."""
    tokenizer: Path | None = None
    """A SentencePiece model; by default that of `init`, or a new one of `model.vocabulary` pieces from the texts."""
    steps: int = 100_000
    """Number of the last step; a resumed run counts on."""
    evaluate_every: int = 2_000
    """Steps between evaluations."""
    save_every: int = 1_000
    """Steps between checkpoints."""
    keep: int = 3
    """Number of latest checkpoints to keep, beside the one with the lowest dev WER."""
    dev_utterances: int = 500
    """Maximum number of utterances of each dev manifest, spread evenly over it."""
    dev_batch: int = 16
    """Recordings transcribed at once in an evaluation."""
    patience: int = 0
    """Evaluations in a row without a lower dev WER that end the run; 0 for no end before the last step."""
    stop_after_skipped: int = 20
    """Number of skipped steps in a row that ends the run; steps with infinite or exploding gradients are skipped."""
    workers: int = 2
    """Processes that prepare batches; 0 prepares each batch between steps."""
    mesh_data: int = -1
    """Size of the mesh axis that rows are spread over and parameters are copied along; -1 for all remaining devices."""
    mesh_fsdp: int = 1
    """Size of the mesh axis that rows and parameters are spread over."""
    distributed: bool = False
    """Train with the other processes of the job (`jax.distributed`, which reads Slurm's variables)."""
    log_every_s: float = 30.0
    """Seconds between lines of the log, without a terminal."""
    track: tuple[Service, ...] = ()
    """Services that get the numbers too: `tensorboard`, `wandb` (Weights & Biases), each an extra of nemojax."""
    tensorboard: bool = False
    """The same as --track tensorboard."""
    accept_changes: bool = False
    """Resume a run with other settings, even if they change what a step computes; its metrics record them."""
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    waveform: WaveformConfig = field(default_factory=WaveformConfig)
    filters: Filters = field(default_factory=Filters)
    plan: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    def sources(self) -> list[Source]:
        """Returns the training manifests with their weights. Raises ConfigError without any."""
        if not self.train:
            raise ConfigError("name the manifests to train on with --train MANIFEST...")
        return [source(text) for text in self.train]

    def to_json(self) -> str:
        """Returns all settings as JSON."""
        return to_json(self)


def source(text: str) -> Source:
    """Parses MANIFEST or MANIFEST=WEIGHT."""
    path, equals, weight = text.rpartition("=")
    try:
        return Source(Path(path), float(weight)) if equals else Source(Path(text))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        return Source(Path(text))  # an = in a file's name


def changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Returns the settings outside `FREE` that differ, by name, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted(set(before) | set(after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= changes(old, new, f"{prefix}{name}.")
        elif old != new and (prefix or name not in FREE):
            found[prefix + name] = (old, new)
    return found


def current_names(recorded: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a settings.json with former names replaced, and with those that were added since."""
    renamed = dict(recorded)
    for group, names in FORMER_NAMES.items():
        if isinstance(values := recorded.get(group), dict):
            renamed[group] = {names.get(name, name): value for name, value in values.items()}
    for group, kind in (("waveform", WaveformConfig), ("training", TrainingConfig)):
        if group in renamed:
            defaults = json.loads(to_json(kind()))
            renamed[group] = {name: defaults[name] for name in kind.ADDED} | renamed[group]
    return renamed


SMALL = ModelConfig(
    features=FeatureConfig(mel_bins=80),
    # no dropout: the model is too small to need it, and it would take a third of the time
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
    "tune": (
        "Fine-tunes a released model, or another, at a small constant rate; ends where the dev WER falls no more.",
        Experiment(
            init=tyro.MISSING,
            training=TrainingConfig(
                schedule="constant",
                learning_rate=5e-5,
                warmup_steps=200,
                average_decay=0.999,
                remat=True,
            ),
            filters=Filters(max_s=40.0),
            steps=10_000,
            evaluate_every=250,
            save_every=250,
            patience=8,
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
        "A tiny model and a few steps on a CPU, to check that everything works.",
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
