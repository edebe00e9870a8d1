"""What Python programs bring: arrays, bytes, readable objects, and pairs of samples and their rate."""

import io
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from nemojax.audio.decoders import BLOCK_FRAMES, DecodedAudio
from nemojax.audio.formats import HEAD_BYTES, identify
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.raw import MAX_CHANNELS, Report
from nemojax.errors import shown

# The value of silence and full scale, by type
INTEGERS = {np.dtype(np.uint8): (128, 2**7), np.dtype(np.int16): (0, 2**15), np.dtype(np.int32): (0, 2**31)}
LIKELY_INT16 = (2**10, 2**15)  # int32 samples whose peak is in this range are 16-bit samples, or 96 dB below full scale
MAX_AMPLITUDE = 8  # full scale is 1; float files may exceed it, but larger values are not audio
SAMPLE_TYPES = "samples are floats in -1 to 1, int16, int32 or uint8"
AMBIGUOUS = "a list of numbers can be samples or recordings; pass numpy.asarray(samples)"
Rate: TypeAlias = int | float | np.integer | np.floating  # a sample rate, a whole number


class Sampled(NamedTuple):
    """An input with the sample rate that it carries."""

    source: Any
    rate_hz: int | None


def check_rate(rate_hz: Any) -> int:
    """Returns a sample rate as an integer. Raises UnnamedAudioError."""
    real = isinstance(rate_hz, numbers.Real | np.generic) and not isinstance(rate_hz, bool | np.bool_)
    if not real or not np.isfinite(rate_hz) or int(rate_hz) != rate_hz:
        raise UnnamedAudioError(f"its sample rate is {str(rate_hz)[:60]!r}; it must be a whole number of Hz")
    return int(rate_hz)


def is_rate_and_samples(source: Any) -> bool:
    """Returns whether an input is (rate, samples), as scipy and gradio give it, or (samples, rate)."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    return sorted(map(_kind, source)) == ["array", "number"]


def _kind(value: Any) -> str:
    if isinstance(value, numbers.Real | np.generic):
        return "number"
    return "array" if hasattr(value, "__array__") else "other"


def unpacked(source: Any) -> Sampled:
    """Returns what a dictionary or a pair holds, with its rate; other inputs as they are. Raises UnnamedAudioError."""
    if is_rate_and_samples(source):
        rate_hz, samples = source if _kind(source[0]) == "number" else source[::-1]
        return Sampled(samples, check_rate(rate_hz))
    if not isinstance(source, Mapping):
        return Sampled(source, None)
    for name in ("array", "raw"):  # datasets, and the pipelines of transformers
        if source.get(name) is not None:
            if source.get("sampling_rate") is None:
                raise UnnamedAudioError(f"it has {name!r}, but no 'sampling_rate'")
            return Sampled(_as_array(source[name]), check_rate(source["sampling_rate"]))
    for name in ("bytes", "path"):  # datasets that are not decoded
        if source.get(name) is not None:
            return Sampled(source[name], None)
    keys = ", ".join(map(repr, list(source)[:5])) or "none"
    raise UnnamedAudioError(
        f"a dictionary holds 'array' and 'sampling_rate', or 'bytes' or 'path'; its keys are {keys}"
    )


def as_file(source: Any) -> Any | None:
    """Returns bytes or a readable object as a binary file; None for other inputs."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    return source if callable(getattr(source, "read", None)) else None


def seekable_size(file: Any) -> tuple[int, int] | None:
    """Returns the position and the size of a file that can seek; None for a pipe."""
    try:
        if not file.seekable():
            return None
        position = file.tell()
        size = file.seek(0, io.SEEK_END)
        size = file.tell() if size is None else size
        file.seek(position)
        return int(position), int(size)
    except (AttributeError, OSError, TypeError):
        return None


def decode_array(source: Any, rate_hz: int) -> DecodedAudio:
    """Returns the samples of an array, [N], [1, N] or [N, channels]. Raises UnnamedAudioError."""
    if isinstance(source, list | tuple):
        raise UnnamedAudioError(AMBIGUOUS)
    array = checked_array(source)
    if array.ndim not in (1, 2):
        raise UnnamedAudioError(f"its shape is {list(array.shape)}; it must be [samples] or [samples, channels]")
    table = array[:, None] if array.ndim == 1 else array.T if array.shape[0] == 1 else array
    if table.shape[1] > MAX_CHANNELS:
        raise UnnamedAudioError(
            f"its shape is {list(array.shape)}, [samples, channels]; transpose it if it is [channels, samples]"
        )
    parts: Iterator[np.ndarray] = (table[begin : begin + BLOCK_FRAMES] for begin in range(0, len(table), BLOCK_FRAMES))
    return DecodedAudio(map(to_float32, parts), rate_hz, table.shape[1], len(table), 0, Report())


def _as_array(source: Any) -> np.ndarray:
    """Returns what numpy makes of an input. Raises UnnamedAudioError."""
    if source is None:
        raise UnnamedAudioError("it is None, not audio")
    try:
        return np.asarray(source)
    except Exception as error:  # a tensor of torch raises errors of several types
        raise UnnamedAudioError(f"it can't be made an array of samples ({shown(str(error), 200)})") from None


def checked_array(source: Any) -> np.ndarray:
    """Returns an array whose type samples can have. Raises UnnamedAudioError."""
    array = _as_array(source)
    if array.dtype.kind == "f":
        return array
    if array.dtype.newbyteorder("=") not in INTEGERS:
        hint = "; to transcribe several recordings, pass a list" if array.dtype.kind in "OUS" else ""
        raise UnnamedAudioError(f"its values are {array.dtype}; {SAMPLE_TYPES}{hint}")
    if array.dtype == np.uint8:
        form = identify(array.reshape(-1)[:HEAD_BYTES].tobytes())
        if form is not None and form.is_audio:
            raise UnnamedAudioError(f"its values are the bytes of {form.name}; pass them as bytes: array.tobytes()")
    if array.dtype.newbyteorder("=") == np.int32 and array.size:
        peak = max(int(array.max()), -int(array.min()))
        if LIKELY_INT16[0] < peak <= LIKELY_INT16[1]:
            raise UnnamedAudioError(
                f"its int32 values are at most {peak}, and full scale is 2147483648; convert 16-bit samples to int16"
            )
    return array


def to_float32(samples: np.ndarray) -> np.ndarray:
    """Converts samples to float32; integers are scaled to -1 to 1."""
    if samples.dtype.kind != "f":
        zero, scale = INTEGERS[samples.dtype.newbyteorder("=")]
        wide: np.ndarray[Any, np.dtype[np.float64]] = samples.astype(np.float64)
        return ((wide - zero) / scale).astype(np.float32)
    if samples.dtype == np.float32:
        return samples.copy()
    with np.errstate(over="ignore"):  # infinity is an error where the values are checked
        return samples.astype(np.float32)


def out_of_range(value: float) -> str:
    """Returns what is wrong with a sample of this value."""
    if np.isfinite(value) and abs(value) < 1e10:
        return f"{value:g}, and full scale is 1; divide 16-bit samples by 32768"
    return f"{value:g}, not audio"


def as_mono(samples: Any) -> np.ndarray:
    """Converts one channel of samples, [N], [1, N] or [N, 1], to float32 [N]. Raises UnnamedAudioError."""
    array = checked_array(samples)
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise UnnamedAudioError(f"a stream takes one channel of samples, [N]; these have the shape {list(array.shape)}")
    array = to_float32(array)
    energy = float(np.dot(array, array))  # a bound of all samples in one fast pass; what is not a number fails it
    if not energy < MAX_AMPLITUDE**2 and not (np.abs(array) < MAX_AMPLITUDE).all():
        invalid = int(np.argmax(~(np.abs(array) < MAX_AMPLITUDE)))
        raise UnnamedAudioError(f"sample {invalid} of those pushed is {out_of_range(float(array[invalid]))}")
    return array
