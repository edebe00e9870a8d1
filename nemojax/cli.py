"""The command line: `nemojax transcribe` and `nemojax info`.

Text goes to standard output; changes made to the audio, errors and progress go to standard error.
Exit codes: 0, everything is done; 1, some recordings could not be transcribed; 2, the command or the model is wrong.
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
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from tqdm import tqdm
from tyro.conf import FlagCreatePairsOff, Positional, arg

from nemojax import __version__
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import MODEL_RATE_HZ, AudioSource, Recording, open_audio
from nemojax.bundled import SMALL
from nemojax.errors import AudioError, ConfigError, NemojaxError
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:  # importing jax takes seconds, and help or a wrong command should not wait for it
    from nemojax.recognition.recognizer import Recognizer
    from nemojax.recognition.stream import Stream

DESCRIPTION = "A cache-aware streaming speech recognizer. `nemojax --version` prints the version."
MANIFESTS = (".jsonl", ".json")

# Options of the commands, with their help texts.
Files = Positional[
    Annotated[
        tuple[str, ...],
        arg(
            metavar="FILE...",
            help="wav, flac, ogg or mp3 files; - for standard input (a wav, or raw 16 kHz 16-bit mono samples); "
            "a .jsonl file is a manifest, with one recording per line.",
            help_behavior_hint="(required)",
        ),
    ]
]
MODEL_HELP = "directory of a model, written by nemojax-convert or by training."
SMALL_HINT = "(default: the small English model that comes with nemojax)"
Model = Annotated[Path, arg(metavar="DIRECTORY", help=MODEL_HELP, help_behavior_hint=SMALL_HINT)]
Lookahead = Annotated[
    int | None,
    arg(
        metavar="FRAMES",
        help="look-ahead of a chunk in frames of 80 ms. The released model has 0, 1, 6 and 13; more is more accurate, "
        "and text comes later.",
        help_behavior_hint="(default: the model's)",
    ),
]
Streaming = Annotated[
    bool, FlagCreatePairsOff, arg(help="process a recording chunk by chunk, and print text as it is recognized.")
]
Live = Annotated[bool, FlagCreatePairsOff, arg(help="like --stream, but paced in real time.")]
BatchSize = Annotated[int, arg(metavar="COUNT", help="recordings transcribed together, without --stream.")]
Json = Annotated[
    bool, FlagCreatePairsOff, arg(help="print one JSON object per recording: text, labels, and words with their times.")
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "int8"],
    arg(
        help="type of the weights: bfloat16 takes half the memory of float32; int8 takes a quarter, and is the fastest "
        "on a CPU."
    ),
]
Kernels = Annotated[
    Literal["auto", "xla", "native"],
    arg(
        help="how matrix products are computed: by XLA, or on a CPU by the native C++ kernels; auto is the faster form "
        "that can run."
    ),
]
Attention = Annotated[
    Literal["auto", "plain", "fused"],
    arg(help="how attention is computed: plain, or fused into one kernel, which runs on a GPU only."),
]
Output = Annotated[
    Path | None,
    arg(
        metavar="DIRECTORY",
        help="transcribe one manifest into JSON lines in this directory; an interrupted job resumes, and several "
        "processes may share it.",
        help_behavior_hint="(default: standard output)",
    ),
]
ShardText = Annotated[
    str | None,
    arg(
        metavar="INDEX/COUNT",
        help="with --output: this process's share of the manifest, such as 0/8.",
        help_behavior_hint="(default: the task's place in its Slurm step, else 0/1)",
    ),
]


def transcribe(
    files: Files,
    /,
    model: Model = SMALL,
    lookahead: Lookahead = None,
    stream: Streaming = False,
    live: Live = False,
    batch_size: BatchSize = 8,
    json: Json = False,
    dtype: Dtype = "float32",
    kernels: Kernels = "auto",
    attention: Attention = "auto",
    output: Output = None,
    shard: ShardText = None,
) -> int:
    """Transcribe recordings."""
    if batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, not {batch_size}")
    load = partial(_load, model, dtype, kernels, attention)
    if output is not None:
        if stream or live or json:
            raise ConfigError("--output can't be combined with --stream, --live or --json: its results are JSON lines")
        return _transcribe_manifest(load, files, lookahead, batch_size, output, shard)
    if shard is not None:
        raise ConfigError("--shard is for a manifest with --output")
    if not files:
        raise ConfigError("name at least one file to transcribe, or - for standard input")
    recognizer = load()
    lookahead = recognizer.lookahead(lookahead)
    printer = _Printer(json, named=len(files) > 1 or files[0].endswith(MANIFESTS))
    if stream or live:
        if live:  # compile before the first chunk, not during it
            recognizer.stream(lookahead).push(np.zeros(recognizer.config.chunk_samples(lookahead), np.float32))
        for name, source in _open_sources(files):
            printer.print_stream(name, source, recognizer.stream(lookahead), live)
    else:
        names: list[str] = []

        def sources() -> Iterator[AudioSource | AudioError]:
            for name, source in _open_sources(files):
                names.append(name)
                yield source

        with tqdm(unit="s", desc="audio", disable=None, leave=False) as bar:
            results = recognizer.transcribe_each(sources(), lookahead, batch_size, progress=bar.update)
            for index, result in _in_order(results):
                bar.clear()
                printer.print_result(names[index], result)
    return printer.exit_code


def _load(model: Path, dtype: str, kernels: str, attention: str) -> "Recognizer":
    from nemojax.recognition import recognizer

    return recognizer.load(model, dtype, kernels, attention)


def _transcribe_manifest(
    load: "Callable[[], Recognizer]",
    files: Sequence[str],
    lookahead: int | None,
    batch_size: int,
    output: Path,
    shard: str | None,
) -> int:
    from nemojax.recognition import bulk

    if len(files) != 1 or not files[0].endswith(MANIFESTS):
        raise ConfigError(
            f"--output is for one manifest ({' or '.join(MANIFESTS)}), not {', '.join(files) or 'nothing'}"
        )
    place = bulk.Shard.parse(shard) if shard is not None else bulk.Shard.of_environment()
    recognizer = load()
    failed = False

    def report(error: AudioError) -> None:
        nonlocal failed
        failed = True
        print(f"error: {error}", file=sys.stderr)

    with tqdm(unit="s", desc=f"shard {place.index} of {place.count}", disable=None, leave=False) as bar:
        outcome = bulk.transcribe_manifest(
            recognizer, Path(files[0]), output, lookahead, batch_size, place, bar.update, report
        )
    waiting = outcome.recordings - outcome.done
    where = f"{waiting} left to other processes" if waiting else f"results are in {output / bulk.TRANSCRIPTS}"
    print(f"{outcome.done} of {outcome.recordings} recordings are done, {outcome.failed} of them failed; {where}")
    return 1 if failed or (outcome.failed and not waiting) else 0


def info(
    model: Positional[
        Annotated[Path, arg(metavar="[DIRECTORY]", help=MODEL_HELP, help_behavior_hint=SMALL_HINT)]
    ] = SMALL,
    /,
) -> int:
    """Print a model's size, settings and origin."""
    from nemojax.checkpoint import read_settings
    from nemojax.model.parameters import abstract_model, parameter_count

    config, _, origin = read_settings(model)
    encoder, lstm = config.encoder, config.prediction
    chunks = ", ".join(f"{r} ({config.chunk_ms(r):.0f} ms)" for r in encoder.lookaheads)
    rows = {
        "parameters": f"{parameter_count(abstract_model(config)):,}",
        "encoder": f"{encoder.layers} layers of width {encoder.width}, {encoder.heads} heads",
        "left context": f"{encoder.left_context_frames} frames of {config.frame_ms:.0f} ms",
        "look-aheads (chunk)": f"{chunks}; any R where R + 1 divides {encoder.left_context_frames}",
        "prediction network": f"LSTM, {lstm.layers} x {lstm.width}",
        "vocabulary": f"{config.vocabulary} pieces and blank",
        "audio": f"{config.features.sample_rate_hz} Hz, {config.features.mel_bins} mel bins",
        **{f"origin: {key}": str(value) for key, value in origin.items() if not isinstance(value, dict | list)},
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return 0


def _open_sources(files: Sequence[str]) -> Iterator[tuple[str, AudioSource | AudioError]]:
    """Yields the name and the source of every recording, or its error.

    Manifests are expanded. A file is opened only when its turn comes.
    """
    for file in files:
        for entry in expand_manifest(file) if file.endswith(MANIFESTS) else [file]:
            name = entry.name if isinstance(entry, Recording) else file
            try:
                yield name, open_audio(entry)
            except AudioError as error:
                yield name, error


def _in_order(
    results: Iterable[tuple[int, Transcript | AudioError]],
) -> Iterator[tuple[int, Transcript | AudioError]]:
    """Yields results in the order of their indices, each as soon as all before it are there."""
    held: dict[int, Transcript | AudioError] = {}
    due = 0
    for index, result in results:
        held[index] = result
        while due in held:
            yield due, held.pop(due)
            due += 1


def set_compilation_cache() -> None:
    """Makes jax keep compiled programs on disk: in `$JAX_COMPILATION_CACHE_DIR`, or in the user's cache directory.

    Compiled code runs on one kind of processor, and home directories are shared between machines, so each kind has its
    own directory. It has an effect only before jax is imported.
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


class _Printer:
    """Prints results and errors, and sets the exit code."""

    def __init__(self, json: bool, named: bool) -> None:
        self.json, self.named, self.exit_code = json, named, 0

    def print_result(self, name: str, result: Transcript | AudioError) -> None:
        """Prints the transcript or the error of one recording."""
        if isinstance(result, AudioError):
            return self._print_error(result)
        self._print_notes(name, result.notes)
        prefix = f"{name}: " if self.named else ""
        print(result.to_json(name) if self.json else prefix + result.text, flush=True)

    def print_stream(self, name: str, source: AudioSource | AudioError, stream: "Stream", live: bool = False) -> None:
        """Streams one recording; prints text as soon as it is recognized, paced in real time if `live`."""
        if isinstance(source, AudioError):
            return self._print_error(source)
        self._print_notes(name, source.notes)
        try:
            if self.named:
                self._print_text(f"{name}: ")
            due_s = time.monotonic()
            while len(samples := source.read_available(stream.chunk_samples)):
                due_s += len(samples) / MODEL_RATE_HZ
                if live:
                    time.sleep(max(due_s - time.monotonic(), 0))
                self._print_text(stream.push(samples).text)
            shown = len(stream.text)
            transcript = stream.finish()
            self._print_text(stream.text[shown:] + "\n")
            if self.json:
                print(transcript.to_json(name), flush=True)
        except AudioError as error:
            self._print_text("\n")
            self._print_error(error)
        finally:
            source.close()

    def _print_text(self, text: str) -> None:
        if not self.json:
            print(text, end="", flush=True)

    def _print_notes(self, name: str, notes: Sequence[str]) -> None:
        if notes:
            print(f"{name}: {', '.join(notes)}", file=sys.stderr)

    def _print_error(self, error: AudioError) -> None:
        print(f"error: {error}", file=sys.stderr)
        self.exit_code = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    set_compilation_cache()
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) == ["--version"]:
        print(f"nemojax {__version__}")
        return 0
    commands: dict[str, Callable[..., int]] = {"transcribe": transcribe, "info": info}
    try:
        code: int = tyro.extras.subcommand_cli_from_dict(
            commands, prog="nemojax", description=DESCRIPTION, args=arguments
        )
        return code
    except NemojaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
