"""Transcribes a manifest of any length with any number of processes, each of which may be killed at any moment.

The output directory holds

    job.json            manifest, model and settings of the job; a resumed job must match them
    parts/00003.jsonl   the results of process 3, one line each, in the order of completion
    transcripts.jsonl   at the end: the transcripts, in the manifest's order
    failures.jsonl      at the end: the recordings that could not be transcribed, and why

A result is written as soon as it is known, with its request; `results.py` lists its fields. A job that is started
again, by the same number of processes or another, transcribes the recordings that have no result yet. Processes
communicate by these files alone: the process that completes the last recording writes the two merged files.

Memory grows by less than 200 bytes per line of the manifest: a line is parsed for its duration when the work is
scheduled, and for its recording when its turn comes.
"""

import bisect
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nemojax.audio.channels import Channel
from nemojax.audio.manifest import Manifest, Request
from nemojax.audio.manifest_entry import duration_s
from nemojax.audio.raw import SampleFormat
from nemojax.audio.source import Recording
from nemojax.audio.voice_activity import VoiceActivity
from nemojax.checks import check_local
from nemojax.config import ModelConfig
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.state import Search
from nemojax.errors import AudioError, ConfigError
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.offline import SEGMENT_LEFT_CONTEXTS, Result
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.results import ERROR, LINE, result_fields
from nemojax.text.inverse import InverseNormalizer
from nemojax.text.json_lines import json_line
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:
    Integers = array[int]
else:
    Integers = array  # takes no parameter before Python 3.12

JOB, PARTS, TRANSCRIPTS, FAILURES = "job.json", "parts", "transcripts.jsonl", "failures.jsonl"
TAIL_BYTES = 65_536  # read at a time in search of the end of the last complete line
RESULT = np.dtype([("number", np.int64), ("part", np.int32), ("offset", np.int64), ("failed", np.bool_)])


@dataclass(frozen=True)
class Shard:
    """The share of the work of one process: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(f"a shard is INDEX/COUNT with INDEX from 0 to COUNT - 1, not {self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads a shard from INDEX/COUNT. Raises ConfigError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None:
            raise ConfigError(f"a shard is written as INDEX/COUNT, such as 0/8, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> "Shard":
        """Returns the shard of a task in its Slurm step; 0/1 outside of one."""
        if "SLURM_STEP_NUM_TASKS" not in environment:  # not set in the batch script itself
            return cls()
        return cls(int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"]))


class Outcome(NamedTuple):
    """State of the job: the numbers of recordings, of those with a result, and of those that failed."""

    recordings: int
    done: int
    failed: int


class _Group(NamedTuple):
    """Lines of similar duration, transcribed together: their numbers, and the bytes that they begin at."""

    numbers: Integers
    offsets: Integers


class _Schedule(NamedTuple):
    """The work of a shard: the groups that are not empty; and what the manifest holds in all."""

    groups: list[_Group]
    numbers: Integers  # of the lines of the whole manifest; a job of an earlier version has results of others too


def transcribe_manifest(
    recognizer: Recognizer,
    manifest: Path,
    output: Path,
    lookahead: int | None = None,
    batch_size: int = 8,
    shard: Shard = Shard(),
    progress: Callable[[float], object] = lambda seconds: None,
    report: Callable[[AudioError], object] = lambda error: None,
    raw: SampleFormat | None = None,
    channel: Channel = None,
    end_of_utterance: EndOfUtterance | None = None,
    vad: bool | VoiceActivity = False,
    normalizer: InverseNormalizer | None = None,
) -> Outcome:
    """Transcribes the recordings of this process's shard that have no result yet.

    Args:
      lookahead: encoder frames; None is the model's default.
      output: a new directory, or the directory of a job to resume.
      progress: called with the seconds of audio of each step.
      report: called with the error of each recording that can't be transcribed.
      raw, channel, end_of_utterance, vad: as for `Recognizer.transcribe_each`.
      normalizer: changes the texts of results; None leaves them.

    Raises:
      ConfigError: `output` holds another job, or another process has this shard, or it can't be written.
      AudioError: the manifest can't be read.
    """
    lookahead = recognizer.lookahead(lookahead)
    lines = Manifest(manifest)
    try:
        options: dict[str, Any] = {} if raw is None else {"raw": raw}
        options |= {} if channel is None else {"channel": channel}
        options |= {} if end_of_utterance is None else {"end_of_utterance": end_of_utterance}
        options |= {"vad": vad} if vad else {}
        settings = options | ({} if normalizer is None else {"itn": True})
        _begin_or_resume(output, recognizer, manifest, lookahead, settings)
        transcribe = partial(
            recognizer.transcribe_each, lookahead=lookahead, batch_size=batch_size, progress=progress, **options
        )
        with _open_part(output, shard) as part:
            schedule = _schedule(lines, recognizer.config, shard, _finished_numbers(output))
            for group in schedule.groups:
                for request, result in _transcribe_group(transcribe, lines, group):
                    if normalizer is not None and isinstance(result, Transcript):
                        result = normalizer.transcript(result)
                    part.write(json_line(result_fields(request, result, manifest.name)).encode() + b"\n")
                    part.flush()
                    if isinstance(result, AudioError):
                        report(result)
        return _merge(output, schedule)
    except OSError as error:
        raise ConfigError(f"{error.filename or output} can't be read or written: {error.strerror}") from None


def _begin_or_resume(
    output: Path, recognizer: Recognizer, manifest: Path, lookahead: int, options: Mapping[str, Any]
) -> None:
    """Writes job.json, or checks that the job in `output` is this one. `options` are those of its recordings."""
    check_local(output)
    (output / PARTS).mkdir(parents=True, exist_ok=True)
    with manifest.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    job = {
        "manifest": manifest.name,
        "sha256": digest,
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "lookahead": lookahead,
        "fingerprint": recognizer.fingerprint,
        "reproducible": recognizer.reproducible,
        **_search_settings(recognizer.search),
        **recognizer.graphs.settings,
        **json.loads(json.dumps(options, default=_fields)),  # tuples as the file has them
    }
    path = output / JOB
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(job, indent=2) + "\n")
        partial.replace(path)
    try:
        before = dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise ConfigError(f"{path} is not the description of a job; name another directory") from None
    for key in ("fingerprint", "reproducible"):
        job[key] = job[key] if key in before else None  # earlier versions wrote none
    pairs = [(key, before.get(key), job.get(key)) for key in dict.fromkeys([*job, *before])]
    if different := [f"{key} was {old!r}, now {new!r}" for key, old, new in pairs if old != new]:
        raise ConfigError(f"{output} holds a job with other settings ({'; '.join(different)}); name another directory")


def _fields(settings: Any) -> dict[str, Any]:
    """Returns the fields of settings as job.json has them; a function by its name."""
    named = lambda value: getattr(value, "__qualname__", value)
    return {field.name: named(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _search_settings(search: Search) -> dict[str, Any]:
    """Returns the settings of a search as job.json has them: of `Greedy`, those that are not the defaults."""
    if not isinstance(search, Greedy):
        return {"search": str(search)}
    defaults = dataclasses.asdict(Greedy())
    return {name: value for name, value in dataclasses.asdict(search).items() if value != defaults[name]}


@contextmanager
def _open_part(output: Path, shard: Shard) -> Iterator[IO[bytes]]:
    """Opens and locks the part of this process, and removes an incomplete line at its end."""
    path = output / PARTS / f"{shard.index:05d}.jsonl"
    with path.open("ab+") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is at work on shard {shard.index} of {output}") from None
        part.truncate(_complete_bytes(part))
        yield part


def _complete_bytes(file: IO[bytes]) -> int:
    """Returns the number of bytes up to the end of the last complete line."""
    size = file.seek(0, os.SEEK_END)
    while size:
        begin = max(0, size - TAIL_BYTES)
        file.seek(begin)
        if (newline := file.read(size - begin).rfind(b"\n")) >= 0:
            return begin + newline + 1
        size = begin
    return 0


def _schedule(lines: Manifest, config: ModelConfig, shard: Shard, finished: set[int]) -> _Schedule:
    """Groups the unfinished lines of a shard by the segments that suit their durations."""
    left_context_s = config.encoder.left_context_frames * config.frame_ms / 1000
    max_durations_s = [left_context_s * contexts for contexts in SEGMENT_LEFT_CONTEXTS[:-1]]
    groups = [_Group(array("q"), array("q")) for _ in SEGMENT_LEFT_CONTEXTS]
    numbers = array("q")
    for number, offset, content in lines.contents():
        if len(numbers) % shard.count == shard.index and number not in finished:
            seconds = duration_s(content)
            group = groups[bisect.bisect_left(max_durations_s, math.inf if seconds is None else seconds)]
            group.numbers.append(number)
            group.offsets.append(offset)
        numbers.append(number)
    return _Schedule([group for group in groups if group.numbers], numbers)


def _transcribe_group(
    transcribe: Callable[[Iterator[Recording | AudioError]], Iterator[Result]], lines: Manifest, group: _Group
) -> Iterator[tuple[Request, Transcript | AudioError]]:
    """Yields each line of a group with its result, in the order of completion."""
    in_progress: dict[int, Request] = {}  # by index in the group

    def recordings() -> Iterator[Recording | AudioError]:
        for index, (number, offset) in enumerate(zip(group.numbers, group.offsets, strict=True)):
            in_progress[index] = request = lines.read(number, offset)
            yield request.recording

    for index, result in transcribe(recordings()):
        yield in_progress.pop(index), result


def _read_results(part: Path) -> Iterator[tuple[int, int, bool]]:
    """Yields for every complete result of a part: its line in the manifest, its first byte, whether it is a failure."""
    with part.open("rb") as file:
        offset = 0
        for content in file:
            if content.endswith(b"\n") and (fields := _parse_result(content)) is not None:
                yield fields[LINE], offset, ERROR in fields
            offset += len(content)


def _parse_result(content: bytes) -> dict[str, Any] | None:
    """Returns the fields of a result; None for a damaged line, whose recording is transcribed again."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and type(fields.get(LINE)) is int else None


def _parts(output: Path) -> list[Path]:
    return sorted((output / PARTS).glob("*.jsonl"))


def _finished_numbers(output: Path) -> set[int]:
    return {number for part in _parts(output) for number, _, _ in _read_results(part)}


def _merge(output: Path, schedule: _Schedule) -> Outcome:
    """Counts the results; writes the merged files if every recording has one. One process merges at a time."""
    with (output / "merge.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        parts = _parts(output)
        rows = (
            (number, index, offset, failed)
            for index, part in enumerate(parts)
            for number, offset, failed in _read_results(part)
        )
        results = np.fromiter(rows, RESULT)
        results = results[np.isin(results["number"], np.asarray(schedule.numbers))]
        # in the manifest's order; two jobs with different shards may have transcribed a line twice: the first counts
        results = results[np.unique(results["number"], return_index=True)[1]]
        if len(results) == len(schedule.numbers):
            _write_merged(output, parts, results)
    return Outcome(len(schedule.numbers), len(results), int(results["failed"].sum()))


def _write_merged(output: Path, parts: Sequence[Path], results: np.ndarray) -> None:
    partial = {name: output / f"{name}.partial" for name in (TRANSCRIPTS, FAILURES)}
    with ExitStack() as stack:
        sources = [stack.enter_context(part.open("rb")) for part in parts]
        transcripts, failures = (stack.enter_context(path.open("wb")) for path in partial.values())
        for _, part, offset, failed in results:
            sources[part].seek(offset)
            (failures if failed else transcripts).write(sources[part].readline())
    for name, path in partial.items():
        path.replace(output / name)
