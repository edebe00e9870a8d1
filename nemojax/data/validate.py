"""Everything that is wrong with some manifests, as a table or as JSON lines.

python -m nemojax.data.validate MANIFEST... [--model DIRECTORY | --tokenizer FILE]

Exit codes: 0, nothing is wrong; 1, something is; 2, the command or the tokenizer is wrong.
"""

import dataclasses
import json as json_lines
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
from nemojax.data.corpus import DEFAULT_FILTERS, Filters, Problem, duration_problems, header_duration_s, text_problems
from nemojax.errors import AudioError, ConfigError, TokenizerError
from nemojax.text.tokenizer import Tokenizer

TOLERANCE_S = 0.05
BLOCK_SAMPLES = 2**18
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


class Finding(NamedTuple):
    """One thing that is wrong. Line 0 is the manifest as a whole."""

    manifest: str
    line: int
    name: str
    kind: str
    message: str


class Heard(NamedTuple):
    """What a file of audio says about itself: how long it is, or why it can't be read; whether all of it is zero."""

    seconds: float = 0.0
    fault: str = ""
    silent: bool = False


def listen(recording: Recording, decode: bool) -> Heard:
    """Opens a recording's file; with `decode`, hears the part that is named to its end as well."""
    whole = dataclasses.replace(recording, offset_s=0.0, duration_s=None)
    try:
        seconds = header_duration_s(whole)
        if not decode:
            return Heard(seconds)
        with closing(open_audio(recording)) as audio:
            silent, decoded = True, 0
            while len(block := audio.read(BLOCK_SAMPLES)):
                silent, decoded = silent and not block.any(), decoded + len(block)
        if not decoded:
            return Heard(seconds, "it holds no samples")
        return Heard(seconds, silent=silent)
    except AudioError as error:
        return Heard(fault=str(error).removeprefix(f"{recording.name}: "))


def findings(
    manifests: Sequence[Path],
    tokenizer: Tokenizer | None,
    config: ModelConfig,
    filters: Filters = DEFAULT_FILTERS,
    *,
    decode: bool = False,
    tolerance_s: float = TOLERANCE_S,
    workers: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Iterator[Finding]:
    """All that is wrong with manifests and the audio they name, in their order.

    Args:
      tokenizer: without one, spelling and the number of labels are not looked at.
      decode: decode all audio, not only its headers: finds what is damaged inside, and silence.
      tolerance_s: by which durations may differ.
      workers: processes that open the audio; 0 is none but this.
      progress: wraps the entries as they are read, as `tqdm` does.
    """
    entries = [(str(path), line, entry) for path in manifests for line, entry in numbered_entries(path)]
    recordings = [entry for _, _, entry in entries if isinstance(entry, Recording)]
    uses = Counter(_file(recording) for recording in recordings)
    first_seen: dict[Any, str] = {}
    with _mapper(workers) as mapped:
        heard = iter(mapped(partial(listen, decode=decode), recordings))
        for manifest, line, entry in progress(entries):
            if isinstance(entry, AudioError):
                message = str(entry).removeprefix(f"{manifest}: ").removeprefix(f"line {line}: ")
                yield Finding(manifest, line, "", "manifest", message)
                continue
            seconds, problems = _audio_problems(entry, next(heard), uses[_file(entry)] == 1, tolerance_s, filters)
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
    recording: Recording, heard: Heard, only_use: bool, tolerance_s: float, filters: Filters
) -> tuple[float | None, list[Problem]]:
    """The recording's seconds, if known, and what is wrong with its audio and its duration."""
    named_s, begin_s = recording.duration_s, recording.offset_s
    if heard.fault:
        kind = "missing file" if not recording.path.exists() else "unreadable"
        problems = [Problem(kind, heard.fault)]
        return named_s, problems if named_s is None else problems + duration_problems(named_s, filters)
    problems = []
    seconds = max(heard.seconds - begin_s, 0.0) if named_s is None else named_s
    if named_s is not None:
        short = begin_s + named_s > heard.seconds + tolerance_s
        # where a file is named once and from its start, the manifest means all of it
        long = only_use and not begin_s and named_s < heard.seconds - tolerance_s
        if short or long:
            where = f" from {begin_s:.2f} s on" if begin_s else ""
            message = f"the manifest says {named_s:.2f} s{where}, the file lasts {heard.seconds:.2f} s"
            problems.append(Problem("duration", message))
    if heard.silent:
        problems.append(Problem("silent", "all its samples are zero"))
    return seconds, problems + duration_problems(seconds, filters)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Heard]]]:
    if not workers:
        yield map
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield partial(pool.map, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


def table(found: Sequence[Finding]) -> str:
    """Findings as lines of aligned columns."""
    rows = [(f"{f.manifest}:{f.line}", f.kind, f.name, f.message) for f in found]
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
    """List everything that is wrong with some manifests.

    Args:
      manifests: JSON lines in NeMo's form, plain or tarred.
      model: a checkpoint directory, whose tokenizer and frames are meant.
      tokenizer: a SentencePiece model, in place of a checkpoint.
      filters: what counts as wrong.
      decode: decode all audio, not only its headers.
      tolerance_s: seconds by which a file and its manifest may differ.
      workers: processes that open the audio.
      json: print one JSON object for each finding instead of a table.
    """
    if not manifests:
        raise ConfigError("name at least one manifest")
    if model is not None and tokenizer is not None:
        raise ConfigError("give --model or --tokenizer, not both")
    config, pieces = ModelConfig(), None
    if model is not None:
        from nemojax.checkpoint import read_settings  # only now: importing jax takes seconds

        config, pieces, _ = read_settings(model)
    elif tokenizer is not None:
        pieces = read_tokenizer(tokenizer)
    else:
        print("without --model or --tokenizer, spelling and labels are not looked at", file=sys.stderr)
    found, checked = [], 0

    def counted(entries: Iterable) -> Iterator:
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
            print(json_lines.dumps(finding._asdict(), ensure_ascii=False), flush=True)
    if found and not json:
        print(table(found))
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(f.kind for f in found).most_common())
    wrong = len({(f.manifest, f.line) for f in found})
    print(f"{checked} entries, {wrong} with something wrong" + (f": {kinds}" if kinds else ""), file=sys.stderr)
    return 1 if found else 0


def read_tokenizer(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path} can't be read: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return tyro.cli(validate, prog="python -m nemojax.data.validate", args=arguments)
    except (ConfigError, TokenizerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        if type(error).__name__ != "CheckpointError":  # its module imports jax
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
