"""Lists everything wrong with manifests and the audio that they name, as a table or as JSON lines.

python -m nemojax.data.validate MANIFEST... [--model DIRECTORY | --tokenizer FILE]

Exit codes: 0, nothing is wrong; 1, something is wrong; 2, an error in the command or the tokenizer.
"""

import dataclasses
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from tqdm import tqdm

from nemojax.audio.manifest import numbered_entries
from nemojax.audio.source import Recording, open_audio
from nemojax.config import ModelConfig
from nemojax.data.command import Flag, run_command
from nemojax.data.corpus import DEFAULT_FILTERS, Filters, Problem, duration_problems, header_duration_s, text_problems
from nemojax.errors import AudioError, ConfigError, TokenizerError, shown
from nemojax.text.json_lines import json_line
from nemojax.text.tokenizer import Tokenizer

TOLERANCE_S = 0.05
BLOCK_SAMPLES = 2**18
FORMER_FLAGS = {
    "--keep-unspelled": "--keep-out-of-vocabulary",
    "--no-keep-unspelled": "--no-keep-out-of-vocabulary",
}


class Finding(NamedTuple):
    """A problem in a manifest. Line 0 stands for the manifest as a whole."""

    manifest: str
    line: int
    name: str
    kind: str
    message: str


class Probe(NamedTuple):
    """The result of probing an audio file: its duration, or why it can't be read; and whether all samples are zero."""

    seconds: float = 0.0
    fault: str = ""
    silent: bool = False


def probe(recording: Recording, decode: bool) -> Probe:
    """Probes a recording's file by its header; with `decode`, also decodes the recording to its end."""
    whole = dataclasses.replace(recording, offset_s=0.0, duration_s=None)
    try:
        seconds = header_duration_s(whole)
        with closing(open_audio(recording)) as audio:
            silent, decoded = True, 0
            while decode and len(block := audio.read(BLOCK_SAMPLES)):
                silent, decoded = silent and not block.any(), decoded + len(block)
            if audio.incomplete:
                return Probe(fault=f"truncated: {', '.join(audio.notes)}")
        if not decode:
            return Probe(seconds)
        if not decoded:
            return Probe(seconds, "it holds no samples")
        return Probe(seconds, silent=silent)
    except AudioError as error:
        return Probe(fault=str(error).removeprefix(f"{recording.name}: "))


def findings(
    manifests: Sequence[Path],
    tokenizer: Tokenizer | None,
    config: ModelConfig,
    filters: Filters = DEFAULT_FILTERS,
    *,
    decode: bool = False,
    tolerance_s: float = TOLERANCE_S,
    workers: int = 0,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Iterator[Finding]:
    """Yields everything wrong with manifests and the audio that they name, in the manifests' order.

    Args:
      tokenizer: None skips the checks of vocabulary and number of labels.
      decode: decode all audio instead of reading headers: finds damage inside files, and silence.
      tolerance_s: seconds by which the durations of a file and its manifest may differ.
      workers: number of processes that open the audio; 0 opens it in this process.
      progress: wraps the entries while they are read, as `tqdm` does.
    """
    entries = [(str(path), line, entry) for path in manifests for line, entry in numbered_entries(path)]
    recordings = [entry for _, _, entry in entries if isinstance(entry, Recording)]
    uses = Counter(_file(recording) for recording in recordings)
    first_seen: dict[Any, str] = {}
    with _mapper(workers) as mapped:
        probes = iter(mapped(partial(probe, decode=decode), recordings))
        for manifest, line, entry in progress(entries):
            if isinstance(entry, AudioError):
                message = str(entry).removeprefix(f"{manifest}: ").removeprefix(f"line {line}: ")
                yield Finding(manifest, line, "", "manifest", message)
                continue
            seconds, problems = _audio_problems(entry, next(probes), uses[_file(entry)] == 1, tolerance_s, filters)
            problems += text_problems(entry.text, seconds, tokenizer, filters, config)
            part = (*_file(entry), entry.offset_s, entry.duration_s)
            if part in first_seen:
                problems.append(Problem("duplicate", f"the same audio as in {first_seen[part]}"))
            first_seen.setdefault(part, f"{manifest}:{line}")
            for problem in problems:
                yield Finding(manifest, line, entry.name, *problem)


def _file(recording: Recording) -> tuple[str, int]:
    return str(recording.path.absolute()), recording.first_byte


def _audio_problems(
    recording: Recording, probed: Probe, only_use: bool, tolerance_s: float, filters: Filters
) -> tuple[float | None, list[Problem]]:
    """Returns the recording's duration in seconds, if known, and the problems of its audio and its duration."""
    named_s, begin_s = recording.duration_s, recording.offset_s
    if probed.fault:
        kind = "missing file" if not recording.path.exists() else "unreadable"
        problems = [Problem(kind, probed.fault)]
        return named_s, problems if named_s is None else problems + duration_problems(named_s, filters)
    problems = []
    seconds = max(probed.seconds - begin_s, 0.0) if named_s is None else named_s
    if named_s is not None:
        short = begin_s + named_s > probed.seconds + tolerance_s
        # a file that is named once, from its start, should be used to its end
        long = only_use and not begin_s and named_s < probed.seconds - tolerance_s
        if short or long:
            where = f" from {begin_s:.2f} s on" if begin_s else ""
            message = f"the manifest says {named_s:.2f} s{where}, the file lasts {probed.seconds:.2f} s"
            problems.append(Problem("duration", message))
    if probed.silent:
        problems.append(Problem("silent", "all its samples are zero"))
    return seconds, problems + duration_problems(seconds, filters)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Probe]]]:
    """Gives a `map` that runs in worker processes, or in this process without workers."""
    if not workers:
        yield map
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield partial(pool.map, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


def table(found: Sequence[Finding]) -> str:
    """Formats findings as aligned columns."""
    rows = [tuple(map(shown, (f"{f.manifest}:{f.line}", f.kind, f.name, f.message))) for f in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + "  " + row[3] for row in rows
    )


def validate(
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]],
    /,
    model: Path | None = None,
    tokenizer: Path | None = None,
    filters: tyro.conf.OmitArgPrefixes[Filters] = DEFAULT_FILTERS,
    decode: Flag = False,
    tolerance_s: float = TOLERANCE_S,
    workers: int = 0,
    json: Flag = False,
) -> int:
    """List everything wrong with manifests.

    Args:
      manifests: JSON lines in NeMo's form, plain or tarred, or Lhotse cuts; also gzipped.
      model: a checkpoint directory, for its tokenizer and its frames.
      tokenizer: a SentencePiece model, instead of a checkpoint.
      filters: conditions for an utterance to be right.
      decode: decode all audio instead of reading headers.
      tolerance_s: seconds by which the durations of a file and its manifest may differ.
      workers: number of processes that open the audio.
      json: print a JSON object for each finding instead of a table.
    """
    if not manifests:
        raise ConfigError("name at least one manifest")
    if model is not None and tokenizer is not None:
        raise ConfigError("give --model or --tokenizer, not both")
    config, pieces = ModelConfig(), None
    if model is not None:
        from nemojax.checkpoint import read_settings  # here, because it imports jax, which takes seconds

        config, pieces, _ = read_settings(model)
    elif tokenizer is not None:
        pieces = read_tokenizer(tokenizer)
    else:
        print("without --model or --tokenizer, vocabulary and labels are not checked", file=sys.stderr)
    found, checked = [], 0

    def counted(entries: Iterable[Any]) -> Iterator[Any]:
        nonlocal checked
        for entry in tqdm(entries, unit=" entries", disable=None, leave=False):
            checked += 1
            yield entry

    for finding in findings(
        manifests,
        None if pieces is None else Tokenizer(pieces),
        config,
        filters,
        decode=decode,
        tolerance_s=tolerance_s,
        workers=workers,
        progress=counted,
    ):
        found.append(finding)
        if json:
            print(json_line(finding._asdict(), sys.stdout.encoding or "utf-8"), flush=True)
    if found and not json:
        print(table(found))
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(f.kind for f in found).most_common())
    wrong = len({(f.manifest, f.line) for f in found})
    print(f"{checked} entries, {wrong} with something wrong" + (f": {kinds}" if kinds else ""), file=sys.stderr)
    return 1 if found else 0


def read_tokenizer(path: Path) -> bytes:
    """Reads a SentencePiece model. Raises TokenizerError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} can't be read: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(validate, "python -m nemojax.data.validate", arguments, FORMER_FLAGS)


if __name__ == "__main__":
    sys.exit(main())
