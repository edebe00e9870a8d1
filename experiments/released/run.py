"""Proves the published figures with the released weights: one command, and a page to open.

    python -m experiments released nvidia/nemotron-speech-streaming-en-0.6b LibriSpeech
    python -m experiments released MODEL.nemo LibriSpeech ami.jsonl tedlium=ted.jsonl --dtype bfloat16

MODEL is a name on the hub, which is downloaded, or a NeMo archive, a Hugging Face directory or a native checkpoint.
DATA are folders of LibriSpeech as it is distributed, and manifests of the sets of the Open ASR Leaderboard, named after
them or given as SET=MANIFEST. Sizes and checksums of the files are compared with those of the release. Each set is
transcribed at each look-ahead, offline as a whole, and streamed in part. WER (Whisper's normalizer), speed and delay
stand beside the published figures, with intervals and a verdict. The directory of --output gets report.html and
rows.jsonl. The same command resumes where it was interrupted.

Exit codes: 0, all that was compared agrees or is better; 1, a file is different, a WER is worse, or recordings failed;
2, the command or the model is wrong.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from experiments.accuracy import evaluate
from experiments.accuracy.listening import TimedWord
from experiments.accuracy.scoring import PACKAGES, EvaluationSet, read_sets
from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.machine import device, machine
from experiments.harness.rows import Row, Rows, select
from experiments.released import report
from experiments.released.known import DIFFERENT, RELEASES, Check, Release
from experiments.released.sets import Named, find_sets
from nemojax import hub, metrics
from nemojax.errors import ConfigError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

ROWS, PAGE, PLOT, MODEL = "rows.jsonl", "report.html", "wer.svg", "model"
SHOWN = ("time", "cpu", "cores", "gpus", "python", "commit", "versions")  # facts of the machine on the page


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A name on the hub, a NeMo archive, a Hugging Face directory, or a native checkpoint."""
    data: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA...")]]
    """Folders of LibriSpeech, manifests, or SET=MANIFEST."""
    output: Path = Path("released")
    """Directory of the report, which is made; a run that was interrupted resumes there."""
    release: Literal["march", "january"] = "march"
    """Whose files and figures to compare with."""
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those of the model."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    batch_size: int = 16
    """Recordings side by side, offline."""
    stream_limit: int = 50
    """Maximum number of recordings of each set that are streamed, one at a time; 0 for none."""
    limit: int | None = None
    """Maximum number of recordings of each set, spread evenly over it."""
    confidence: float = 0.95
    """Of the intervals."""
    resamples: int = 2000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""

    def check(self) -> None:
        if not self.data:
            raise ConfigError("name LibriSpeech's folder, or at least one manifest")
        checks.at_least(1, self, "batch_size", "limit", "resamples")
        checks.at_least(0, self, "stream_limit")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"--confidence must be between 0 and 1, not {self.confidence}")
        metrics.normalizer("whisper")  # a missing package is an error now, not after hours of transcribing
        checks.check_installed("matplotlib")
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.output} can't be made: {error.strerror}") from None


def obtain(model: str, output: Path, release: Release) -> tuple[Path, list[Check]]:
    """Returns the native checkpoint of a model, converted if need be, and the checks of its files.

    Raises:
      NemojaxError: there is no such model, or it can't be downloaded or converted.
    """
    from convert.__main__ import from_huggingface, from_nemo
    from convert.hub import locate
    from experiments.released.identity import check_converted, check_files, is_native

    name = hub.NAME.fullmatch(model)
    if name and not os.path.lexists(model) and not model.endswith(hub.ARCHIVE):
        files = locate(f"{name['owner']}/{name['model']}", "huggingface", name["revision"])
        return hub.resolve(model), check_files(files, release)
    path = hub.resolve(model)
    if not path.exists():
        raise ConfigError(f"{model} is neither a file, nor a directory, nor a name on the hub (owner/model)")
    found = check_files(path, release)
    if is_native(path):
        return path, found
    native = output / MODEL
    if native.exists():
        check_converted(native, path)
    else:
        (from_nemo if path.is_file() else from_huggingface)(str(path), native)
    return native, found


def fingerprint(native: Path, dtype: str) -> str:
    """Returns what tells the weights of a run apart: a digest of the checkpoint's origin and settings, and the type."""
    files = [native / name for name in ("config.json", "origin.json")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + dtype.encode()).hexdigest()[:16]


def measure(settings: Settings, rows: Rows) -> int:
    from experiments.released.identity import check_parameters
    from nemojax.recognition.recognizer import load

    release = RELEASES[settings.release]
    sets = find_sets(settings.data, settings.output)
    for named in sets:  # an error now, not after a download
        if not named.manifest.is_file():
            raise ConfigError(f"{named.manifest} is neither a folder of LibriSpeech nor a manifest: no such file")
    native, found = obtain(settings.model, settings.output, release)
    recognizer = load(native, settings.dtype)
    found.append(check_parameters(recognizer.parameters, release))
    for check in found:
        print(
            f"{check.what}: {check.found}{f', released: {check.expected}' if check.expected else ''}: {check.verdict}"
        )
    done = _earlier(settings.output / ROWS)
    key = {"weights": fingerprint(native, settings.dtype), "limit": settings.limit, "dtype": settings.dtype}
    key |= {"stream_limit": settings.stream_limit}
    shown: list[Row] = []
    for named in sets:
        for row in measure_set(recognizer, named, settings, key, done, rows):
            shown.append(row)
            write_page(settings.output, shown, found, release)
            print(report.line(row, release), flush=True)
    print(f"\n{report.text(shown, found, release)}\n\nopen {settings.output / PAGE}")
    different = any(check.verdict == DIFFERENT for check in found)
    worse = any(report.verdict(row, release) == report.WORSE for row in shown)
    return int(different or worse or bool(rows.problems) or any(row["failed"] for row in shown))


def measure_set(
    recognizer: "Recognizer", named: Named, settings: Settings, key: Row, done: Sequence[Row], rows: Rows
) -> list[Row]:
    """Returns the row of a set at each look-ahead; those of an earlier run of the same weights are taken from it."""
    from experiments.accuracy.streamed import chosen, measure_streamed, spoken_ends

    (evaluation_set,) = read_sets([named.manifest], settings.limit, with_speakers=False)
    evaluation_set = evaluation_set._replace(label=named.name)
    requested = settings.lookaheads or recognizer.config.encoder.lookaheads
    result: list[Row] = []
    ends: dict[int, list[TimedWord]] = {}
    for lookahead in [recognizer.lookahead(one) for one in dict.fromkeys(requested)]:
        same = {**key, "set": named.name, "lookahead": lookahead, "entries": len(evaluation_set.entries)}
        if earlier := select(done, **same):
            result.append(earlier[-1])
            continue
        row, scored = evaluate.measure_set(
            recognizer, evaluation_set, lookahead, _evaluation(settings, evaluation_set), rows.report
        )
        streamed = chosen(scored, settings.stream_limit)
        if streamed:
            ends = ends or spoken_ends(recognizer, evaluation_set, streamed, settings.batch_size)
            row |= measure_streamed(recognizer, evaluation_set, streamed, lookahead, ends)
        result.append(rows.add({**row, **same, "device": device()}))
    return result


def _evaluation(settings: Settings, evaluation_set: EvaluationSet) -> evaluate.Settings:
    return evaluate.Settings(
        model=Path(settings.model),
        manifests=(evaluation_set.path,),
        normalizer="whisper",
        limit=settings.limit,
        batch_size=settings.batch_size,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def _earlier(path: Path) -> list[Row]:
    """Returns the rows of an earlier run; an incomplete last line is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_page(output: Path, rows: Sequence[Row], found: Sequence[Check], release: Release) -> None:
    """Writes the page with the rows so far."""
    report.plot(rows, release, output / PLOT)
    drawn = (output / PLOT).read_text()
    facts = {name: value for name, value in machine(PACKAGES).items() if name in SHOWN}
    facts |= {"device": device()}
    page = report.page(rows, found, release, facts, drawn[drawn.index("<svg") :])
    (output / PAGE).write_text(page, encoding="utf-8")


EXPERIMENT = Experiment(
    "released", Settings, measure, __doc__, packages=PACKAGES, rows_path=lambda settings: settings.output / ROWS
)
main = EXPERIMENT.main
