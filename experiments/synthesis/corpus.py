"""Synthetic speech with its text, as tarred manifests in NeMo's form, from Debian's synthesisers.

    apt install espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts
    python -m experiments synthesis OUT --hours 8

OUT gets synthetic_train, synthetic_dev (texts that are never in training, voices that are) and synthetic_new_voice
(texts and voices that are never in training), each a .jsonl and a .tar. Texts, voices and samples are a function of the
settings and of the synthesisers' versions, whatever the number of workers; in Ogg, a stream's serial number is not.
"""

import io
import json
import os
import random
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import soundfile
import tyro
from tqdm import tqdm

from experiments.harness.command import command
from experiments.synthesis.programs import RATE_HZ, SynthesisError, require, spoken
from experiments.synthesis.sentences import held_out, is_spoken_as_written, sentences
from experiments.synthesis.voices import PROGRAMS, VOICES, Delivery, Program, Voice, drawn_delivery
from nemojax.data.train_tokenizer import texts_of
from nemojax.errors import ConfigError

TWO_SENTENCES = 0.25  # the share of clips with two, a pause between them
AHEAD = 4  # sentences in work, per worker
REPORTED = 5
HOPELESS = 20  # failures more than clips: the synthesiser does not work
FORMATS = {"ogg": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}


@dataclass(frozen=True)
class Settings:
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """A directory; sets in it that exist are not overwritten."""
    hours: float = 8.0
    """Of training speech."""
    dev: int = 150
    """Clips of unseen text by voices of the training set."""
    new_voice: int = 100
    """Clips of unseen text by voices left out of training."""
    seed: int = 0
    texts: tuple[Path, ...] = ()
    """Manifests whose texts, in part, are spoken in training in place of made sentences."""
    texts_share: float = 0.25
    """The share of training clips that take a text of --texts."""
    programs: tuple[Program, ...] = PROGRAMS
    """The synthesisers to use."""
    format: Literal["ogg", "flac"] = "ogg"
    """Opus in Ogg, or FLAC."""
    compression: float | None = None
    """From 0 to 1, as libsndfile counts; 0.95 is about 19 kilobits a second in Ogg. By default that library's own."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def __post_init__(self):
        if self.hours < 0 or self.dev < 0 or self.new_voice < 0:
            raise ConfigError("--hours, --dev and --new-voice must not be negative")
        if self.workers < 1:
            raise ConfigError(f"--workers must be at least 1, not {self.workers}")
        if not 0 <= self.texts_share <= 1:
            raise ConfigError(f"--texts-share must be from 0 to 1, not {self.texts_share}")
        if self.compression is not None and not 0 <= self.compression <= 1:
            raise ConfigError(f"--compression must be from 0 to 1, not {self.compression}")
        if not self.programs:
            raise ConfigError("--programs must name at least one synthesiser")


class Clip(NamedTuple):
    """What is to be said, by whom and how."""

    text: str
    voice: Voice
    delivery: Delivery


class Result(NamedTuple):
    clip: Clip
    seconds: float
    encoded: bytes
    problem: str = ""


def clips(
    seed: str, voices: Sequence[Voice], kept_from_training: bool, texts: Sequence[str] = (), texts_share: float = 0.0
) -> Iterator[Clip]:
    """Clips without end, a function of the arguments."""
    rng = random.Random(seed)
    made = sentences(rng, kept_from_training)
    shares = [voice.share for voice in voices]
    while True:
        if texts and rng.random() < texts_share:
            text = rng.choice(texts)
        else:
            text = " ".join(next(made) for _ in range(1 + (rng.random() < TWO_SENTENCES)))
        voice = rng.choices(voices, shares)[0]
        yield Clip(text, voice, drawn_delivery(voice, rng))


def speak(clip: Clip, format: str, compression: float | None) -> Result:
    try:
        samples = spoken(clip.text, clip.voice, clip.delivery)
    except SynthesisError as error:
        return Result(clip, 0.0, b"", str(error))
    container, subtype = FORMATS[format]
    file = io.BytesIO()
    level = {} if compression is None else {"compression_level": compression}
    soundfile.write(file, samples, RATE_HZ, format=container, subtype=subtype, **level)
    return Result(clip, len(samples) / RATE_HZ, file.getvalue())


def speak_all(wanted: Iterator[Clip], settings: Settings) -> Generator[Result, None, None]:
    """Results in the order of the clips. The synthesisers are processes of their own, so threads drive them."""
    with ThreadPoolExecutor(settings.workers) as pool:
        pending: list[Future[Result]] = []
        try:
            while True:
                for clip in islice(wanted, AHEAD * settings.workers - len(pending)):
                    pending.append(pool.submit(speak, clip, settings.format, settings.compression))
                if not pending:
                    return
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def write_set(
    output: Path, name: str, wanted: Iterator[Clip], settings: Settings, seconds: float | None = None
) -> None:
    """A set of so many seconds, or of all clips wanted: NAME.tar and NAME.jsonl, which appear when whole."""
    tar, manifest = output / f"{name}.tar", output / f"{name}.jsonl"
    heard: dict[str, float] = defaultdict(float)  # seconds
    lines: list[str] = []
    failures: list[Result] = []
    partial = tar.with_suffix(".tar.partial"), manifest.with_suffix(".jsonl.partial")
    with ExitStack() as stack:
        for path in partial:
            stack.callback(path.unlink, missing_ok=True)
        archive = stack.enter_context(tarfile.open(partial[0], "w", format=tarfile.USTAR_FORMAT))
        bar = stack.enter_context(tqdm(total=seconds and round(seconds), desc=name, unit="s", smoothing=0.05))
        results = speak_all(wanted, settings)
        stack.callback(results.close)
        for result in results:
            if result.problem:
                failures.append(result)
                if len(failures) <= REPORTED:
                    bar.write(
                        f"left out: {result.clip.voice.speaker}: {result.clip.text!r}: {result.problem}", sys.stderr
                    )
                if len(failures) > len(lines) + HOPELESS:
                    raise ConfigError(
                        f"{name}: {len(failures)} of {len(failures) + len(lines)} sentences could not be spoken; "
                        f"the first problem: {failures[0].problem}"
                    )
                continue
            file = f"{name}-{len(lines):06d}.{settings.format}"
            member = tarfile.TarInfo(file)
            member.size = len(result.encoded)
            archive.addfile(member, io.BytesIO(result.encoded))
            lines.append(json.dumps(entry(file, result)))
            heard[result.clip.voice.program] += result.seconds
            bar.update(round(sum(heard.values())) - bar.n)
            if seconds is not None and sum(heard.values()) >= seconds:
                break
        archive.close()
        if not lines:
            raise ConfigError(f"{name}: no sentence could be spoken; the first problem: {failures[0].problem}")
        partial[1].write_text("\n".join(lines) + "\n")
        partial[0].rename(tar)
        partial[1].rename(manifest)
    shares = ", ".join(f"{program} {heard[program] / sum(heard.values()):.0%}" for program in sorted(heard))
    print(f"{name}: {len(lines)} clips, {sum(heard.values()) / 3600:.2f} h ({shares}), {len(failures)} left out")


def entry(file: str, result: Result) -> dict[str, Any]:
    """A line of a manifest."""
    voice = result.clip.voice
    return {
        "audio_filepath": file,
        "duration": round(result.seconds, 4),
        "text": result.clip.text,
        "speaker": voice.speaker,
        "synthesiser": voice.program,
        "voice": voice.name,
        **result.clip.delivery._asdict(),
    }


def texts_for_training(manifests: Sequence[Path]) -> list[str]:
    """Their texts that are spoken as written and not held out."""
    texts = texts_of(manifests, distinct=True)
    kept = [text for text in texts if is_spoken_as_written(text) and not held_out(text)]
    if manifests:
        print(f"{len(kept)} of {len(texts)} texts of the manifests are used; the others are held out or not all words")
        if not kept:
            raise ConfigError("none of the texts of --texts is made of words and punctuation alone")
    return kept


def synthesise(settings: Settings) -> int:
    voices = [voice for voice in VOICES if voice.program in settings.programs]
    seen, left_out = [v for v in voices if not v.left_out], [v for v in voices if v.left_out]
    require(voices)
    if settings.new_voice and not left_out:
        raise ConfigError(f"{', '.join(settings.programs)} has no voice left out of training; give --new-voice 0")
    texts = texts_for_training(settings.texts)
    train = clips(f"{settings.seed} train", seen, False, texts, settings.texts_share)
    dev = islice(clips(f"{settings.seed} dev", seen, True), settings.dev)
    new_voice = islice(clips(f"{settings.seed} new voice", left_out, True), settings.new_voice)
    sets = {
        "synthetic_dev": (dev, None, settings.dev),
        "synthetic_new_voice": (new_voice, None, settings.new_voice),
        "synthetic_train": (train, settings.hours * 3600, settings.hours),
    }
    settings.output.mkdir(parents=True, exist_ok=True)
    for name in sets:
        if (settings.output / f"{name}.jsonl").exists():
            raise ConfigError(
                f"{settings.output / name}.jsonl exists already; name another directory or remove it first"
            )
    begin = time.perf_counter()
    for name, (wanted, seconds, amount) in sets.items():
        if amount:
            write_set(settings.output, name, wanted, settings, seconds)
    print(f"{(time.perf_counter() - begin) / 60:.1f} minutes with {settings.workers} workers")
    return 0


def run(settings: Settings) -> int:
    try:
        return synthesise(settings)
    except OSError as error:
        raise ConfigError(f"{error.filename or 'the output'} can't be written: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "synthesis", __doc__, arguments)
