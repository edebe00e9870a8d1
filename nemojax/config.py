"""Settings of a model: frozen dataclasses, presets, and the numbers derived from them.

Every derived number is a property with its unit in its name. The defaults are those of the released
0.6B model; `PRESETS` names the others. Nothing here imports jax.
"""

import json
from dataclasses import dataclass, field

from nemojax import settings
from nemojax.errors import ConfigError, shown

EVENTS = ("<EOU>", "<EOB>")  # end of an utterance and of a backchannel, in NeMo's EOU models and their manifests

# Bounds on settings. They bound the time and the memory that reading a checkpoint from elsewhere takes.
MAX_LAYERS = 128
MAX_SIZE = 1 << 17  # of widths, of contexts in frames, of windows in samples, of the vocabulary
MAX_RATE_HZ = 1_000_000
MAX_FILTER_VALUES = 1 << 22  # of the mel filters; the release has 32,896
MAX_LISTED = 1000  # look-aheads, and events
MAX_SHOWN = 60  # characters of a number in a message


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel front end: 25 ms windows every 10 ms."""

    sample_rate_hz: int = 16_000  # of the audio
    window_samples: int = 400  # of audio in a log-mel frame
    hop_samples: int = 160  # between the starts of windows
    fft_samples: int = 512  # of a window, padded
    mel_bins: int = 128  # values of a log-mel frame
    preemphasis: float = 0.97  # share of each sample that is subtracted from the next one
    log_guard: float = 2.0**-24  # added to energies before the logarithm

    @property
    def overlap_samples(self) -> int:
        """Samples that neighboring windows share, which a stream's cache keeps."""
        return self.window_samples - self.hop_samples


@dataclass(frozen=True)
class EncoderConfig:
    """Cache-aware FastConformer."""

    layers: int = 24  # Conformer blocks
    width: int = 1024  # values of an encoder frame
    heads: int = 8  # of attention, which divide the width
    feedforward_width: int = 4096  # hidden values of a feed-forward layer
    subsampling_channels: int = 256  # of the convolutions that make one frame of 8
    convolution_kernel: int = 9  # frames that a block's convolution sees, all of them in the past
    left_context_frames: int = 70  # that attention sees before a chunk
    lookaheads: tuple[int, ...] = (13, 6, 1, 0)  # in encoder frames; trained at these, the first is the default
    use_bias: bool = False  # in linear and convolution layers of the blocks
    scale_input: bool = False  # multiply the subsampled frames by sqrt(width)
    dropout: float = 0.1  # of the outputs of layers in the encoder
    attention_dropout: float = 0.1  # of attention's weights

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def largest_chunk_frames(self) -> int:
        """Frames of the largest chunk that the model was trained with: what a ring has room for beside its context."""
        return max(self.lookaheads) + 1


@dataclass(frozen=True)
class PredictionConfig:
    """Prediction network: embedding and LSTM."""

    width: int = 640  # of the embedding and of the LSTM
    layers: int = 2  # of the LSTM
    dropout: float = 0.2  # of the outputs of the LSTM


@dataclass(frozen=True)
class JointConfig:
    """Joint network: sum of two projections, ReLU, output layer."""

    width: int = 640  # of the two projections
    dropout: float = 0.2  # of their sum


@dataclass(frozen=True)
class TextConfig:
    """How labels become text. A checkpoint without these settings has the defaults."""

    events: tuple[str, ...] = ()  # pieces that mark an event, such as "<EOU>": labels, but no part of the text
    join_punctuation: bool = False  # remove the space before . , ? ! ; :


@dataclass(frozen=True)
class ModelConfig:
    """Transducer: front end, encoder, prediction and joint networks. `vocabulary` counts pieces, without blank."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    joint: JointConfig = field(default_factory=JointConfig)
    vocabulary: int = 1024  # pieces of the tokenizer, without blank
    max_symbols_per_frame: int = 10  # greedy decoding moves to the next frame after this number of labels
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        encoder = self.encoder
        self._check_sizes()
        self._check_features()
        if encoder.width % encoder.heads:
            raise ConfigError(f"encoder.width {encoder.width} is not a multiple of encoder.heads {encoder.heads}")
        if encoder.width % 2:
            raise ConfigError(f"encoder.width must be even for sinusoidal positions, not {encoder.width}")
        for name, rate in (
            ("encoder.dropout", encoder.dropout),
            ("encoder.attention_dropout", encoder.attention_dropout),
            ("prediction.dropout", self.prediction.dropout),
            ("joint.dropout", self.joint.dropout),
        ):
            if not 0 <= rate <= 1:
                raise ConfigError(f"{name} must be 0 to 1, not {shown(rate, MAX_SHOWN)}")
        if not encoder.lookaheads:
            raise ConfigError("encoder.lookaheads is empty")
        for name, listed in (("encoder.lookaheads", encoder.lookaheads), ("text.events", self.text.events)):
            if len(listed) > MAX_LISTED:
                raise ConfigError(f"{name} must list at most {MAX_LISTED}, not {len(listed)}")
        for lookahead in encoder.lookaheads:
            self.chunk_frames(lookahead)

    def _check_sizes(self) -> None:
        """Raises ConfigError for a number that is not in the range of any model."""
        encoder, features = self.encoder, self.features
        numbers = {
            "encoder.layers": (encoder.layers, MAX_LAYERS),
            "encoder.width": (encoder.width, MAX_SIZE),
            "encoder.heads": (encoder.heads, MAX_SIZE),
            "encoder.feedforward_width": (encoder.feedforward_width, MAX_SIZE),
            "encoder.subsampling_channels": (encoder.subsampling_channels, MAX_SIZE),
            "encoder.convolution_kernel": (encoder.convolution_kernel, MAX_SIZE),
            "encoder.left_context_frames": (encoder.left_context_frames, MAX_SIZE),
            "features.sample_rate_hz": (features.sample_rate_hz, MAX_RATE_HZ),
            "features.hop_samples": (features.hop_samples, MAX_SIZE),
            "features.fft_samples": (features.fft_samples, MAX_SIZE),
            "features.mel_bins": (features.mel_bins, MAX_SIZE),
            "prediction.width": (self.prediction.width, MAX_SIZE),
            "prediction.layers": (self.prediction.layers, MAX_LAYERS),
            "joint.width": (self.joint.width, MAX_SIZE),
            "vocabulary": (self.vocabulary, MAX_SIZE),
            "max_symbols_per_frame": (self.max_symbols_per_frame, MAX_SIZE),
        }
        for name, (value, maximum) in numbers.items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {shown(value, MAX_SHOWN)}")
            if value > maximum:
                raise ConfigError(f"{name} must be at most {maximum}, not {shown(value, MAX_SHOWN)}")

    def _check_features(self) -> None:
        features = self.features
        if not features.hop_samples <= features.window_samples <= features.fft_samples:
            raise ConfigError("features: hop_samples <= window_samples <= fft_samples does not hold")
        if self.history_samples < 0:
            raise ConfigError(f"features: window_samples must be at most {2 * self.frame_samples}, 16 hops")
        if features.mel_bins * (features.fft_samples // 2 + 1) > MAX_FILTER_VALUES:
            raise ConfigError(f"features: mel_bins and fft_samples give more than {MAX_FILTER_VALUES} filter values")
        for name, value in (("preemphasis", features.preemphasis), ("log_guard", features.log_guard)):
            if not 0 <= value <= 1:
                raise ConfigError(f"features.{name} must be 0 to 1, not {shown(value, MAX_SHOWN)}")

    @property
    def blank(self) -> int:
        """Label of blank, the last one; the prediction network's start symbol too."""
        return self.vocabulary

    @property
    def labels(self) -> int:
        """Size of the joint network's output: the pieces and blank."""
        return self.vocabulary + 1

    @property
    def subsampling_factor(self) -> int:
        """Log-mel frames per encoder frame: three convolutions of stride 2."""
        return 8

    @property
    def frame_samples(self) -> int:
        """Samples per encoder frame."""
        return self.subsampling_factor * self.features.hop_samples

    @property
    def frame_ms(self) -> float:
        return 1000 * self.frame_samples / self.features.sample_rate_hz

    @property
    def history_samples(self) -> int:
        """Zeros before a signal that make its first chunk as long as every other.

        Encoder frame 0 depends on log-mel frame 0 alone, so on half a window of real samples. With these virtual
        samples it depends on as many as every other frame.
        """
        return self.frame_samples - self.features.window_samples // 2

    def chunk_frames(self, lookahead: int) -> int:
        """Returns the encoder frames per chunk at a look-ahead.

        Raises:
          ConfigError: the left context is not a whole number of such chunks, or `lookahead` is negative.
        """
        if lookahead < 0 or self.encoder.left_context_frames % (lookahead + 1):
            raise ConfigError(
                f"lookahead {lookahead} does not fit: lookahead + 1 must divide the left context "
                f"of {self.encoder.left_context_frames} frames; this model was trained with {self.encoder.lookaheads}"
            )
        return lookahead + 1

    def chunk_samples(self, lookahead: int) -> int:
        return self.chunk_frames(lookahead) * self.frame_samples

    def chunk_ms(self, lookahead: int) -> float:
        return self.chunk_frames(lookahead) * self.frame_ms

    def log_mel_frames(self, samples: int) -> int:
        """Returns the number of valid log-mel frames of a recording: F = floor(N / hop)."""
        return samples // self.features.hop_samples

    def encoder_frames(self, samples: int) -> int:
        """Returns the number of encoder frames of a recording: T = ceil((F - 1) / 8) + 1, and 0 where F = 0."""
        frames = self.log_mel_frames(samples)
        return 0 if frames == 0 else -(-(frames - 1) // self.subsampling_factor) + 1

    def to_json(self) -> str:
        return settings.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "ModelConfig":
        """Reads what `to_json` wrote. Raises ConfigError for each unknown, missing or unsuitable setting, by name.

        Only the settings of `text` may be missing: older checkpoints have none.
        """
        values = settings.parse_json(text, "config.json")
        if isinstance(values, dict) and isinstance(values.get("text", {}), dict):
            values["text"] = json.loads(settings.to_json(TextConfig())) | values.get("text", {})
        return settings.read(cls, values)


PRESETS: dict[str, ModelConfig] = {
    # nvidia/nemotron-speech-streaming-en-0.6b: 618,084,865 parameters
    "0.6b": ModelConfig(),
    # the family's 114M models
    "114m": ModelConfig(
        features=FeatureConfig(mel_bins=80),
        encoder=EncoderConfig(layers=17, width=512, heads=8, feedforward_width=2048, use_bias=True, scale_input=True),
        prediction=PredictionConfig(layers=1),
    ),
    # for tests: every mechanism, few parameters
    "tiny": ModelConfig(
        encoder=EncoderConfig(layers=2, width=32, heads=4, feedforward_width=64, subsampling_channels=8),
        prediction=PredictionConfig(width=24),
        joint=JointConfig(width=16),
        vocabulary=64,
    ),
}
