"""Audio for tests: waves, and files of them as bytes."""

import io
import struct
from contextlib import closing

import numpy as np
import soundfile

from nemojax.audio.source import open_audio

RATES = {"OPUS": 48_000}
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wavfloat": ("WAV", "FLOAT"),
    "wavulaw": ("WAV", "ULAW"),
    "wavima": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def wave(frames: int, channels: int | None = None, seed: int = 0) -> np.ndarray:
    """Float32 [frames] or [frames, channels] within -0.9 to 0.9: a tone with noise, other for every channel."""
    noise = np.random.default_rng(seed).uniform(-0.4, 0.4, (frames, channels or 1))
    tone = 0.5 * np.sin(np.arange(frames)[:, None] * 0.05 * (1 + np.arange(channels or 1)))
    samples = (tone + noise).astype(np.float32)
    return samples if channels else samples[:, 0]


def encoded(samples: np.ndarray, rate_hz: int, kind: str = "wav", **options) -> bytes:
    container, coding = KINDS[kind]
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=container, subtype=coding, **options)
    return file.getvalue()


def wav_bytes(data: bytes, data_size=None, riff_size=None, channels=1, rate_hz=16_000, coding=1, bits=16, order="<"):
    """A wav with any sizes in its header; None is the right one."""
    width = channels * bits // 8
    layout = struct.pack(order + "HHIIHH", coding, channels, rate_hz, rate_hz * width, width, bits)
    data_size = len(data) if data_size is None else data_size
    riff_size = 36 + len(data) if riff_size is None else riff_size
    size = lambda value: struct.pack(order + "I", value)
    head = b"RIFF" if order == "<" else b"RIFX"
    return head + size(riff_size) + b"WAVEfmt " + size(16) + layout + b"data" + size(data_size) + data


def without_frame_count(mp3: bytes) -> bytes:
    """An mp3 without its first frame, which holds the count of the others and no sound."""
    header = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return mp3[mp3.find(mp3[:2], header) :]


def everything(source, block: int = 16_000, **options) -> np.ndarray:
    """Reads a source in blocks to its end, and checks their sizes and types."""
    with closing(open_audio(source, **options)) as audio:
        blocks = []
        while len(samples := audio.read(block)):
            blocks.append(samples)
        assert all(len(samples) == block for samples in blocks[:-1]) and not len(audio.read(block))
        assert all(samples.dtype == np.float32 and samples.ndim == 1 for samples in blocks)
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
