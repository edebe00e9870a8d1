"""The command line: `nemojax transcribe` and `nemojax info`.

Text goes to standard output; what was done to the audio, what failed, and progress go to standard error.
Exit codes: 0, all is done; 1, some recordings could not be transcribed; 2, the command or the model is wrong.
"""

import hashlib
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import MODEL_RATE_HZ, AudioSource, Recording, open_audio
from nemojax.bundled import SMALL
from nemojax.errors import AudioError, ConfigError
from nemojax.text.transcript import Transcript

MANIFESTS = (".jsonl", ".json")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def transcribe(
    files: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE...")]],
    /,
    model: Path = SMALL,
    lookahead: int | None = None,
    stream: Flag = False,
    live: Flag = False,
    batch_size: int = 8,
    json: Flag = False,
    dtype: Literal["float32", "bfloat16", "int8"] = "float32",
    output: Path | None = None,
    shard: str | None = None,
) -> int:
    """Transcribe recordings.

    Args:
      files: wav, flac, ogg or mp3 files; - is standard input (a wav, or raw 16 kHz 16-bit mono); a .jsonl file
        is a manifest of recordings.
      model: a directory that nemojax-convert or training wrote; without it, the small model that comes with nemojax.
      lookahead: frames of 80 ms that a chunk looks ahead: 0, 1, 6 or 13 for the released model, more is more
        accurate; None is the model's default.
      stream: go through a recording chunk by chunk, as if it were live, and print text as it comes.
      live: the same, and each chunk is heard when it would be spoken, no sooner.
      batch_size: recordings computed side by side, when not streaming.
      json: print one JSON object for each recording.
      dtype: bfloat16 takes half the memory of float32; int8 a quarter, and is the fastest on a CPU.
      output: of one manifest, a directory for the results, in which a job that was killed goes on, and which several
        processes may share; see nemojax.recognition.bulk.
      shard: INDEX/COUNT, which of those processes this is; by default a task's place in its Slurm step.
    """
    from nemojax.recognition import recognizer as api  # only now: importing jax takes seconds

    if output is not None:
        return _transcribe_bulk(files, model, lookahead, batch_size, dtype, output, shard, stream or live or json)
    if shard is not None:
        raise ConfigError("--shard is for a manifest with --output")
    if not files:
        raise ConfigError("name at least one file to transcribe, or - for standard input")
    if batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
    recognizer = api.load(model, dtype)
    lookahead = recognizer.lookahead(lookahead)
    stream = stream or live
    out = _Output(json, named=len(files) > 1 or files[0].endswith(MANIFESTS))
    if stream:
        if live:  # compiling would hold up the first chunk
            recognizer.stream(lookahead).push(np.zeros(recognizer.config.chunk_samples(lookahead), np.float32))
        for name, source in _sources(files):
            out.stream(name, source, recognizer.stream(lookahead), live)
    else:
        names: list[str] = []

        def opened() -> Iterator[Any]:
            for name, source in _sources(files):
                names.append(name)
                yield source

        with tqdm(unit="s", desc="audio", disable=None, leave=False) as bar:
            results = recognizer.transcribe_each(opened(), lookahead, batch_size, progress=bar.update)
            for index, result in _in_order(results):
                bar.clear()
                out.write(names[index], result)
    return out.exit_code


def _transcribe_bulk(
    files: Sequence[str],
    model: Path,
    lookahead: int | None,
    batch_size: int,
    dtype: str,
    output: Path,
    shard: str | None,
    others: bool,
) -> int:
    from nemojax.recognition import bulk
    from nemojax.recognition import recognizer as api

    if len(files) != 1 or not files[0].endswith(MANIFESTS):
        raise ConfigError(
            f"--output is for one manifest ({' or '.join(MANIFESTS)}), not {', '.join(files) or 'nothing'}"
        )
    if others:
        raise ConfigError("--output does not go with --stream, --live or --json: its results are JSON lines")
    if batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
    place = bulk.Shard.parse(shard) if shard is not None else bulk.Shard.of_environment()
    recognizer = api.load(model, dtype)
    failed = False

    def report(error: AudioError) -> None:
        nonlocal failed
        failed = True
        print(f"error: {error}", file=sys.stderr)

    with tqdm(unit="s", desc=f"share {place.index} of {place.count}", disable=None, leave=False) as bar:
        try:
            outcome = bulk.transcribe_manifest(
                recognizer, Path(files[0]), output, lookahead, batch_size, place, bar.update, report
            )
        except AudioError as error:
            raise ConfigError(str(error)) from None
    waiting = outcome.recordings - outcome.done
    where = f"others are at work on {waiting} more" if waiting else f"{output / bulk.TRANSCRIPTS}"
    print(f"{outcome.done} of {outcome.recordings} recordings have a result, {outcome.failed} of them failed; {where}")
    return 1 if failed or (outcome.failed and not waiting) else 0


def info(model: tyro.conf.Positional[Path] = SMALL, /) -> int:
    """Say what a checkpoint is.

    Args:
      model: a directory that nemojax-convert or training wrote; without it, the small model that comes with nemojax.
    """
    from nemojax.checkpoint import read_settings
    from nemojax.model.parameters import abstract_model, parameter_count

    config, _, origin = read_settings(model)
    encoder, lstm = config.encoder, config.prediction
    chunks = ", ".join(f"{r} ({config.chunk_ms(r):.0f} ms)" for r in encoder.lookaheads)
    rows = {
        "parameters": f"{parameter_count(abstract_model(config)):,}",
        "encoder": f"{encoder.layers} layers of width {encoder.width}, {encoder.heads} heads",
        "left context": f"{encoder.left_context_frames} frames of {config.frame_ms:.0f} ms",
        "look-aheads (chunk)": f"{chunks}; any R with R + 1 dividing {encoder.left_context_frames}",
        "prediction network": f"LSTM of {lstm.layers} x {lstm.width}",
        "vocabulary": f"{config.vocabulary} pieces and blank",
        "audio": f"{config.features.sample_rate_hz} Hz, {config.features.mel_bins} mel bins",
        **{f"origin: {key}": str(value) for key, value in origin.items() if not isinstance(value, dict | list)},
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return 0


def _sources(files: Sequence[str]) -> Iterator[tuple[str, AudioSource | AudioError]]:
    """Every recording named, or what is wrong with it; manifests are expanded, files opened when their turn comes."""
    for file in files:
        for entry in expand_manifest(file) if file.endswith(MANIFESTS) else [file]:
            name = entry.name if isinstance(entry, Recording) else file
            try:
                yield name, open_audio(entry)
            except AudioError as error:
                yield name, error


def _in_order(results: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Results by index, each held until all before it have come."""
    held, due = {}, 0
    for index, result in results:
        held[index] = result
        while due in held:
            yield due, held.pop(due)
            due += 1


def keep_compiled() -> None:
    """Has jax keep compiled steps on disk, for later runs: in `$JAX_COMPILATION_CACHE_DIR`, or the user's cache.

    Compiled code is for one kind of processor, and home directories are shared: each kind has its own directory. It
    changes nothing once jax is imported.
    """
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^(?:flags|Features)\s*:.*", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    kind = hashlib.sha256(f"{platform.machine()} {flags and flags[0]}".encode()).hexdigest()[:12]
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nemojax" / kind
    except RuntimeError:  # there is no home directory
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


class _Output:
    """Prints results and errors, and remembers whether any failed."""

    def __init__(self, json: bool, named: bool):
        self.json, self.named, self.exit_code = json, named, 0

    def write(self, name: str, result: Transcript | AudioError) -> None:
        if isinstance(result, AudioError):
            return self._fail(result)
        self._notes(name, result.notes)
        prefix = f"{name}: " if self.named else ""
        print(result.to_json(name) if self.json else prefix + result.text, flush=True)

    def stream(self, name: str, source: AudioSource | AudioError, stream: Any, live: bool = False) -> None:
        """Hears one recording as it comes; text is appended to the line as soon as it is known."""
        if isinstance(source, AudioError):
            return self._fail(source)
        self._notes(name, source.notes)
        say = partial(print, end="", flush=True) if not self.json else lambda text: None
        try:
            if self.named:
                say(f"{name}: ")
            due_s = time.monotonic()
            while len(heard := source.read_available(stream.chunk_samples)):
                due_s += len(heard) / MODEL_RATE_HZ
                if live:
                    time.sleep(max(due_s - time.monotonic(), 0))
                say(stream.push(heard).text)
            shown = len(stream.text)
            transcript = stream.finish()
            say(stream.text[shown:] + "\n")
            if self.json:
                print(transcript.to_json(name), flush=True)
        except AudioError as error:
            say("\n")
            self._fail(error)
        finally:
            source.close()

    def _notes(self, name: str, notes: Sequence[str]) -> None:
        if notes:
            print(f"{name}: {', '.join(notes)}", file=sys.stderr)

    def _fail(self, error: AudioError) -> None:
        print(f"error: {error}", file=sys.stderr)
        self.exit_code = 1


def main(arguments: Sequence[str] | None = None) -> int:
    keep_compiled()
    from nemojax.errors import CheckpointError, TokenizerError

    commands: dict[str, Callable[..., int]] = {"transcribe": transcribe, "info": info}
    try:
        return tyro.extras.subcommand_cli_from_dict(
            commands, prog="nemojax", description="A cache-aware streaming speech recogniser.", args=arguments
        )
    except (CheckpointError, ConfigError, TokenizerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
