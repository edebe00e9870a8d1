"""The results of a job in another form, beside its JSON lines; see `nemojax.text.formats`."""

import json
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from nemojax.errors import shown
from nemojax.recognition.bulk import TRANSCRIPTS
from nemojax.recognition.results import LINE, PREDICTED
from nemojax.text.formats import DOCUMENTS, LINES, Timed, file_id

START = {"ctm": 2, "stm": 3}  # the column of the start
MAX_NAME_BYTES = 100  # of a file's name, before its number and suffix


def export(output: Path, form: str) -> Path:
    """Writes the results of a job that is complete; returns the file, or the directory of a file for each recording.

    A ctm and an stm are sorted by recording and time; one recording at a time is in memory.
    """
    if form in DOCUMENTS:
        return _documents(output, form)
    target = output / f"transcripts.{form}"
    partial = target.with_suffix(f".{form}.partial")
    with (
        (output / TRANSCRIPTS).open("rb") as results,
        partial.open("w", encoding="utf-8", errors="backslashreplace") as written,  # names need not be UTF-8
    ):
        if form in LINES:
            for _, places in groupby(_by_recording(output), key=lambda each: each[0]):
                written.writelines(_lines(results, [place for _, place in places], form))
        else:
            for fields in map(json.loads, results):
                name = fields["audio"]
                written.write(f"{shown(name, limit=len(name))}: {fields[PREDICTED]}\n")
    partial.replace(target)
    return target


def _by_recording(output: Path) -> list[tuple[str, int]]:
    """Returns the recording of each line of a job's results, and the line's first byte; in their order."""
    found, place = [], 0
    with (output / TRANSCRIPTS).open("rb") as results:
        for line in results:
            found.append((file_id(json.loads(line)["audio"]), place))
            place += len(line)
    return sorted(found)


def _lines(results: IO[bytes], places: list[int], form: str) -> list[str]:
    """Returns the lines of all parts of one recording, in the order of time."""
    lines = []
    for place in places:
        results.seek(place)
        lines += LINES[form](Timed.of_fields(json.loads(results.readline()))).splitlines(keepends=True)
    return sorted(lines, key=lambda line: float(line.split(" ")[START[form]]))


def _documents(output: Path, form: str) -> Path:
    directory = output / form
    directory.mkdir(exist_ok=True)
    with (output / TRANSCRIPTS).open("rb") as results:
        for line in results:
            fields = json.loads(line)
            (directory / _name(fields, form)).write_text(DOCUMENTS[form](Timed.of_fields(fields)), encoding="utf-8")
    return directory


def _name(fields: dict[str, Any], form: str) -> str:
    """Returns the name of a recording's file: the number of its line, which is unique, and its own name."""
    stem = file_id(fields["audio"]).replace("/", "_").replace("\0", "_")
    stem = stem.encode("utf-8", "replace")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return f"{fields[LINE]:06d}-{stem}.{form}"
