"""Settings of a training run, and the presets that `python -m experiments train PRESET` starts from."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments.harness.settings import to_json
from nemojax.config import PRESETS as MODELS
from nemojax.config import EncoderConfig, FeatureConfig, JointConfig, ModelConfig, PredictionConfig
from nemojax.data.corpus import Filters, Source
from nemojax.data.plan import PlanConfig
from nemojax.data.waveform import RECIPE, WaveformConfig
from nemojax.errors import ConfigError
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.lora import LoraConfig
from nemojax.training.recipe import TrainingConfig

# settings that may change when a run is resumed, because no step computes anything else with them
FREE = frozenset(
    {"run", "dev", "steps", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch", "workers"}
    | {"stop_after_skipped", "tensorboard", "distributed", "accept_changes"}
    | {"coordinator", "processes", "process"}
    | {"patience", "track", "log_seconds", "peak_tflops", "dry", "card_gb"}
)

# settings that can't change when a run is resumed, because its state depends on them
FIXED = (
    *("model.", "init", "tokenizer", "training.seed", "training.frozen", "training.train_only", "training.lora"),
    *("training.average", "training.skip_window"),
)

# entries of settings.json beside the settings: the settings of the model that the run started with, a fingerprint of
# its data, and its losses if `Run` was given any
RECORDED = frozenset({"started", "data", "losses"})

# settings that were added later, and change what a step computes
ADDED = ("replay", "replay_share")

# settings that were renamed: former names of flags, and groups with former names in a settings.json
FORMER_FLAGS = {
    "--filters.keep-unspelled": "--filters.keep-out-of-vocabulary",
    "--filters.no-keep-unspelled": "--filters.no-keep-out-of-vocabulary",
    "--waveform.noise-colour": "--waveform.noise-color",
    "--train-only": "--training.train-only",  # and short names
    "--lora": "--training.lora.rank",
}
FORMER_NAMES = {"filters": Filters.FORMER_NAMES, "waveform": WaveformConfig.FORMER_NAMES}


@dataclass(frozen=True)
class Experiment:
    """Settings of a training run."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]] = tyro.MISSING
    """Directory of the run; a run that was started there is resumed."""
    train: tuple[str, ...] = ()
    """Manifests. MANIFEST=2 repeats each of its utterances twice in an epoch, MANIFEST=0.5 once in two epochs."""
    replay: tuple[str, ...] = ()
    """Manifests of other data, such as those that `init` was trained on, so that the model keeps what it knows;
    MANIFEST=2 has twice the weight of the others."""
    replay_share: float = 0.25
    """Share of the audio of an epoch that is replay."""
    dev: tuple[Path, ...] = ()
    """Manifests whose WER and CER are measured during training, at each of the model's look-aheads."""
    init: Path | None = None
    """A native checkpoint to start from, or a name: small, or one on the hub, which is converted once into the user's
    cache; its settings replace those of `model`."""
    tokenizer: Path | None = None
    """A SentencePiece model; by default that of `init`, or a new one of `model.vocabulary` pieces from the texts."""
    steps: int = 100_000
    """Number of the last step; a resumed run counts on."""
    evaluate_every: int = 2_000
    """Steps between evaluations."""
    patience: int = 0
    """End the run after this many evaluations in a row without a lower dev WER; 0 trains to the last step."""
    save_every: int = 1_000
    """Steps between checkpoints."""
    keep: int = 3
    """Number of latest checkpoints to keep, beside the one with the lowest dev WER."""
    dev_utterances: int = 500
    """Maximum number of utterances of each dev manifest, spread evenly over it."""
    dev_batch: int = 16
    """Recordings transcribed at once in an evaluation."""
    stop_after_skipped: int = 20
    """Number of skipped steps in a row that ends the run; steps with infinite or exploding gradients are skipped."""
    workers: int = 2
    """Processes that prepare batches; 0 prepares each batch between steps."""
    mesh_data: int = -1
    """Size of the mesh axis that rows are spread over and parameters are copied along; -1 for all remaining devices."""
    mesh_fsdp: int = 1
    """Size of the mesh axis that rows and parameters are spread over."""
    distributed: bool = False
    """Train with the other processes of the job (`jax.distributed`). Those of srun and mpirun find each other; others
    need the next three settings."""
    coordinator: str | None = None
    """HOST:PORT of process 0, or JAX_COORDINATOR_ADDRESS; implies --distributed, as do the next two."""
    processes: int | None = None
    """Number of processes, or JAX_NUM_PROCESSES."""
    process: int | None = None
    """Number of this process, from 0; or JAX_PROCESS_ID, or JOB_COMPLETION_INDEX in a Job of Kubernetes."""
    tensorboard: bool = False
    """The same as --track tensorboard."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Programs that get the metrics too: TensorBoard (needs nemojax[tensorboard]) and Weights & Biases (needs
    nemojax[wandb])."""
    log_seconds: float = 30.0
    """Without a terminal: seconds between the lines that report progress; 0 for none."""
    peak_tflops: float = 0.0
    """Peak of one device in 10^12 operations a second, for its utilization (MFU); 0 for the data sheet's in bfloat16,
    where it is known."""
    dry: bool = False
    """Only print what the run would do, and the memory that a step takes, from shapes alone; nothing is written. The
    exit code is 1 where the memory is more than that of --card-gb."""
    card_gb: float = 80.0
    """With --dry: memory of the card in 10^9 bytes."""
    accept_changes: bool = False
    """Resume a run with other settings, even if they change what a step computes; its metrics record them."""
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    waveform: WaveformConfig = field(default_factory=WaveformConfig)
    filters: Filters = field(default_factory=Filters)
    plan: PlanConfig = field(default_factory=PlanConfig)

    def __post_init__(self) -> None:
        if self.patience < 0 or self.log_seconds < 0 or self.peak_tflops < 0:
            raise ConfigError("patience, log_seconds and peak_tflops must be at least 0")
        if not 0 < self.replay_share < 1:
            raise ConfigError(f"replay_share must be more than 0 and less than 1, not {self.replay_share}")
        if not self.card_gb > 0:
            raise ConfigError(f"card_gb must be more than 0, not {self.card_gb}")
        for name in ("steps", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    def sources(self) -> list[Source]:
        """Returns the training manifests with their weights, then those of replay. Raises ConfigError without any."""
        if not self.train:
            raise ConfigError("name the manifests to train on with --train MANIFEST...")
        return [source(text) for text in (*self.train, *self.replay)]

    def resolved(self) -> "Experiment":
        """Returns the settings with those that depend on others: a cosine schedule ends with the last step.

        Raises:
          ConfigError: `patience` without a dev manifest.
        """
        if self.patience and not self.dev:
            raise ConfigError("patience needs a dev manifest: name one with --dev, or set --patience 0")
        recipe = self.training
        if recipe.schedule != "cosine" or recipe.decay_steps:
            return self
        return dataclasses.replace(self, training=dataclasses.replace(recipe, decay_steps=self.steps))

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
    """Returns the settings of a settings.json with former names replaced, and with those that were added since.

    A setting that was added has a default that changes nothing.
    """
    renamed = dict(recorded)
    for group, names in FORMER_NAMES.items():
        if isinstance(values := recorded.get(group), dict):
            renamed[group] = {names.get(name, name): value for name, value in values.items()}
    defaults = json.loads(Experiment(run=Path()).to_json())
    for group in ("training", "waveform"):
        if group in renamed:
            renamed[group] = defaults[group] | renamed[group]
    return {name: defaults[name] for name in ADDED} | renamed


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

FINE_TUNING = Experiment(
    model=MODELS["0.6b"],
    init=Path("nvidia/nemotron-speech-streaming-en-0.6b"),
    training=TrainingConfig(
        schedule="cosine",
        learning_rate=5e-5,
        warmup_steps=200,
        remat=True,
    ),
    plan=PlanConfig(batch_frames=2_000, bucket_count=6),
    steps=3_000,
    evaluate_every=250,
    save_every=250,
    patience=5,
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
    "fine-tune": (
        "Fine-tune the released 0.6B model, or another with --init: all of its weights.",
        FINE_TUNING,
    ),
    "fine-tune-lora": (
        "The same with LoRA: adapters of rank 16 beside the kernels of attention and feed-forward layers.",
        dataclasses.replace(
            FINE_TUNING,
            training=dataclasses.replace(FINE_TUNING.training, lora=LoraConfig(rank=16), learning_rate=5e-4),
        ),
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
