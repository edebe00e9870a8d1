"""A manifest of any length, transcribed by any number of processes, each of which may be killed at any moment.

The output directory holds

    job.json            what is transcribed, and how; who goes on with it must mean the same
    parts/00003.jsonl   the results of process 3, a line each, in the order in which they were done
    transcripts.jsonl   in the end: a line for every recording, in the manifest's order
    failures.jsonl      in the end: the recordings that could not be transcribed, and why

A result is written as soon as it is known. Started again, by as many processes or by others, it goes on with what has
no result yet. Processes know nothing of each other but by these files: who finds that all is done writes the last two.
"""

import bisect
import fcntl
import hashlib
import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from nemojax.audio.manifest import Manifest
from nemojax.audio.source import Recording
from nemojax.errors import AudioError, ConfigError
from nemojax.recognition.offline import SEGMENT_LEFT_CONTEXTS
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.transcript import Transcript

JOB, PARTS, TRANSCRIPTS, FAILURES = "job.json", "parts", "transcripts.jsonl", "failures.jsonl"
NUMBER = re.compile(rb'{"line": (\d+), ')  # how every line of a part begins


@dataclass(frozen=True)
class Shard:
    """Which of the processes this is: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ConfigError(f"a shard is INDEX/COUNT with INDEX from 0 to COUNT - 1, not {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None:
            raise ConfigError(f"a shard is written as INDEX/COUNT, such as 0/8, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> "Shard":
        """A task's place in its Slurm step; the only one where there is none."""
        if "SLURM_STEP_NUM_TASKS" not in environment:  # which the batch script itself does not have
            return cls()
        return cls(int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"]))


class Outcome(NamedTuple):
    """Where the job stands: recordings in all, those with a result, and those of them that failed."""

    recordings: int
    done: int
    failed: int


def transcribe_manifest(
    recognizer: Recognizer,
    manifest: Path,
    output: Path,
    lookahead: int | None = None,
    batch_size: int = 8,
    shard: Shard = Shard(),
    progress: Callable[[float], object] = lambda seconds: None,
    report: Callable[[AudioError], object] = lambda error: None,
) -> Outcome:
    """Transcribes this process's share of what has no result yet.

    Args:
      output: a new directory, or that of a job which is gone on with.
      progress: told the seconds of audio of each step.
      report: told what is wrong with each recording that can't be transcribed.

    Raises:
      ConfigError: `output` is of another job, or another process has this share, or it can't be written.
      AudioError: the manifest can't be read.
    """
    lookahead = recognizer.lookahead(lookahead)
    lines = Manifest(manifest)
    try:
        _begin(output, recognizer, manifest, lookahead)
        with _part(output, shard) as part:
            done = _done(output)
            recordings, shares = _by_length(lines, recognizer, shard, done)
            for numbers, offsets in shares:
                entry = lambda i, ns=numbers, os=offsets: lines.entry(ns[i], lines.line(os[i]))
                sources = map(entry, range(len(numbers)))
                for index, result in recognizer.transcribe_each(sources, lookahead, batch_size, progress=progress):
                    named = entry(index)
                    name = named.name if isinstance(named, Recording) else f"{manifest.name}: line {numbers[index]}"
                    _write(part, numbers[index], name, result)
                    if isinstance(result, AudioError):
                        report(result)
        return _merge(output, recordings)
    except OSError as error:
        raise ConfigError(f"{error.filename or output} can't be read or written: {error.strerror}") from None


def _begin(output: Path, recognizer: Recognizer, manifest: Path, lookahead: int) -> None:
    (output / PARTS).mkdir(parents=True, exist_ok=True)
    with manifest.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    job = {
        "manifest": manifest.name,
        "sha256": digest,
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "lookahead": lookahead,
    }
    path = output / JOB
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(job, indent=2) + "\n")
        partial.replace(path)
    before = json.loads(path.read_text())
    if different := [
        f"{key}: {before.get(key)!r} then, {job[key]!r} now" for key in job if before.get(key) != job[key]
    ]:
        raise ConfigError(f"{output} was begun with other settings ({'; '.join(different)}); name another directory")


@contextmanager
def _part(output: Path, shard: Shard) -> Iterator[IO[bytes]]:
    """This process's part, which no other may write to; a line that was cut off is taken out."""
    path = output / PARTS / f"{shard.index:05d}.jsonl"
    with path.open("ab+") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is at work on share {shard.index} of {output}") from None
        part.truncate(_whole(part))
        yield part


def _whole(file: IO[bytes]) -> int:
    """Bytes up to the end of the last line that is complete."""
    size = file.seek(0, os.SEEK_END)
    while size:
        begin = max(0, size - 65_536)
        file.seek(begin)
        if (newline := file.read(size - begin).rfind(b"\n")) >= 0:
            return begin + newline + 1
        size = begin
    return 0


def _results(output: Path) -> Iterator[tuple[int, Path, int, bytes]]:
    """Of every complete line in the parts: its number in the manifest, where it is, and itself."""
    for path in sorted((output / PARTS).glob("*.jsonl")):
        with path.open("rb") as part:
            offset = 0
            for line in part:
                if line.endswith(b"\n") and (match := NUMBER.match(line)):
                    yield int(match[1]), path, offset, line
                offset += len(line)


def _done(output: Path) -> set[int]:
    return {number for number, *_ in _results(output)}


def _by_length(
    lines: Manifest, recognizer: Recognizer, shard: Shard, done: set[int]
) -> tuple[int, list[tuple[array, array]]]:
    """The recordings in all, and this process's lines, by number and place, those together that need segments alike."""
    config = recognizer.config
    window_s = config.encoder.left_context_frames * config.frame_ms / 1000
    longest_s = [window_s * contexts for contexts in SEGMENT_LEFT_CONTEXTS[:-1]]
    shares = [(array("q"), array("q")) for _ in SEGMENT_LEFT_CONTEXTS]
    recordings = 0
    for number, offset, line in lines.lines():
        if recordings % shard.count == shard.index and number not in done:
            duration_s = _duration_s(line)
            share = shares[bisect.bisect_left(longest_s, duration_s)]
            share[0].append(number)
            share[1].append(offset)
        recordings += 1
    return recordings, [share for share in shares if share[0]]


def _duration_s(line: bytes) -> float:
    """As the manifest has it; infinity where it has none."""
    try:
        return float(json.loads(line)["duration"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


def _write(part: IO[bytes], number: int, name: str, result: Transcript | AudioError) -> None:
    if isinstance(result, AudioError):
        fields: dict[str, Any] = {"audio": name, "error": str(result)}
    else:
        fields = json.loads(result.to_json(name))
    part.write(json.dumps({"line": number, **fields}, ensure_ascii=False).encode() + b"\n")
    part.flush()


def _merge(output: Path, recordings: int) -> Outcome:
    """Writes the last two files where every recording has a result; one process at a time."""
    with (output / "merge.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        where: dict[int, tuple[Path, int]] = {}
        failed = 0
        for number, path, offset, line in _results(output):
            if number not in where:
                where[number] = path, offset
                failed += b'"error": ' in line and "error" in json.loads(line)
        if len(where) == recordings:
            _write_merged(output, where)
    return Outcome(recordings, len(where), failed)


def _write_merged(output: Path, where: Mapping[int, tuple[Path, int]]) -> None:
    files = {path: path.open("rb") for path, _ in where.values()}
    partial = {name: (output / f"{name}.partial").open("wb") for name in (TRANSCRIPTS, FAILURES)}
    try:
        for number in sorted(where):
            path, offset = where[number]
            files[path].seek(offset)
            line = files[path].readline()
            failed = b'"error": ' in line and "error" in json.loads(line)
            partial[FAILURES if failed else TRANSCRIPTS].write(line)
    finally:
        for file in [*files.values(), *partial.values()]:
            file.close()
    for name in partial:
        (output / f"{name}.partial").replace(output / name)
