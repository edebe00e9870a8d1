"""Runs the speech synthesizers, a process for each sentence, and checks that they are installed."""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from experiments.synthesis.voices import Delivery, Program, Voice
from nemojax.errors import ConfigError, NemojaxError

RATE_HZ = 16_000
LEVEL = 0.07  # root mean square of the louder half of a clip
PEAK = 0.95
LIMIT_S = 60.0  # of a process for one sentence
SHORTEST_S_PER_CHARACTER = 0.02
ESPEAK_WORDS_PER_MINUTE = 170
ESPEAK_OCTAVE = 58.0  # of its 100 steps of pitch, those that double the frequency near the middle
PACKAGES: dict[str, str] = {  # Debian packages by program or voice
    "espeak-ng": "espeak-ng",
    "flite": "flite",
    "festival": "festival",
    "kal_diphone": "festvox-kallpc16k",
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
}
LISTS: dict[Program, list[str]] = {  # commands that print the names of all voices
    "espeak-ng": ["espeak-ng", "--voices=en"],
    "flite": ["flite", "-lv"],
    "festival": ["festival", "-b", "(print (voice.list))"],
}


class SynthesisError(NemojaxError):
    """Reports a sentence that could not be spoken; says why."""


def speak(text: str, voice: Voice, delivery: Delivery) -> np.ndarray:
    """Speaks a sentence: [N] float32 at RATE_HZ, at one level for all voices. Raises SynthesisError."""
    with tempfile.TemporaryDirectory(prefix="synthesis-") as directory:
        wav = Path(directory, "spoken.wav")
        command = _command(voice, delivery, wav)
        try:
            done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise SynthesisError(f"{voice.program} took over {LIMIT_S:g} s") from None
        except OSError as error:
            raise SynthesisError(f"{command[0]} can't be started ({error.strerror})") from None
        if done.returncode or not wav.exists():
            complaint = done.stderr.decode(errors="replace").strip().splitlines()
            raise SynthesisError(f"{voice.program} failed: {complaint[-1] if complaint else done.returncode}")
        try:
            samples, rate_hz = soundfile.read(wav, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise SynthesisError(f"{voice.program} wrote no sound ({error})") from None
    samples = soxr.resample(samples.mean(1), rate_hz * delivery.size, RATE_HZ) if len(samples) else samples[:, 0]
    if len(samples) < SHORTEST_S_PER_CHARACTER * RATE_HZ * len(text):
        raise SynthesisError(f"{voice.program} spoke {len(text)} characters in {len(samples) / RATE_HZ:.2f} s")
    return leveled(samples)


def leveled(samples: np.ndarray) -> np.ndarray:
    """Scales samples to LEVEL, pauses not counted, and to at most PEAK. Raises SynthesisError for silence."""
    blocks = samples[: len(samples) // 400 * 400].reshape(-1, 400)
    powers = np.sort(np.square(blocks).mean(1))
    level, peak = float(np.sqrt(powers[len(powers) // 2 :].mean())), float(np.abs(samples).max())
    if not np.isfinite(level) or level < 1e-4:
        raise SynthesisError("there is no sound in what was spoken")
    return (samples * min(LEVEL / level, PEAK / peak)).astype(np.float32)


def _command(voice: Voice, delivery: Delivery, wav: Path) -> list[str]:
    """Returns the command that speaks its standard input. Its speed allows for the later change of size."""
    stretch = f"{delivery.size / delivery.speed:.3f}"
    hz = round(voice.pitch_hz * delivery.pitch)
    match voice.program:
        case "espeak-ng":
            speed = round(ESPEAK_WORDS_PER_MINUTE * delivery.speed)
            pitch = round(50 + ESPEAK_OCTAVE * float(np.log2(delivery.pitch)))
            return ["espeak-ng", "--stdin", "-v", voice.name, "-s", str(speed), "-p", str(pitch), "-w", str(wav)]
        case "flite":
            mean = ["--seti", f"int_f0_target_mean={hz}"] if hz else []
            return ["flite", "-voice", voice.name, "--setf", f"duration_stretch={stretch}", *mean, "-o", str(wav), "-"]
        case "festival":
            steps = [f"(voice_{voice.name})", f"(Param.set 'Duration_Stretch {stretch})"]
            if hz:
                steps.append(f"(set! int_lr_params (cons '(target_f0_mean {hz}) int_lr_params))")
            else:
                steps.append(f'(set! hts_engine_params (cons \'("-r" {1 / float(stretch):.3f}) hts_engine_params))')
            return ["text2wave", "-eval", f"(begin {' '.join(steps)})", "-o", str(wav)]


def require(voices: Sequence[Voice]) -> None:
    """Checks that all voices are installed. Raises ConfigError for the first that is not, with the Debian package."""
    for voice in voices:
        if shutil.which(voice.program) is None:
            raise ConfigError(
                f"{voice.program} is not installed: install the Debian package {PACKAGES[voice.program]}, or leave it "
                "out with --programs"
            )
        missing = set(voice.name.split("+")) - _names(voice.program)
        if missing:
            package = PACKAGES.get(voice.name, PACKAGES[voice.program])
            raise ConfigError(
                f"{voice.program} has no voice {voice.name} here: install the Debian package {package}, or leave "
                f"{voice.program} out with --programs"
            )


@functools.cache
def _names(program: Program) -> frozenset[str]:
    """Returns the names of a program's accents and variants, or of its voices."""
    lists = [LISTS[program]] + ([["espeak-ng", "--voices=variant"]] if program == "espeak-ng" else [])
    printed = " ".join(subprocess.run(command, capture_output=True, text=True).stdout for command in lists)
    return frozenset(re.findall(r"[\w-]+", printed))
