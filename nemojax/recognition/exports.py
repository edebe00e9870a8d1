"""The results of a job in another form, beside its JSON lines; see `nemojax.text.formats`."""

import json
from pathlib import Path
from typing import Any

from nemojax.recognition.bulk import TRANSCRIPTS
from nemojax.recognition.results import LINE, PREDICTED
from nemojax.text.formats import DOCUMENTS, LINES, Timed, file_id

MAX_NAME_BYTES = 100  # of a file's name, before its number and suffix


def export(output: Path, form: str) -> Path:
    """Writes the results of a job that is complete; returns the file, or the directory of a file for each recording.

    A ctm and an stm are sorted by recording and time. Nothing is held in memory but the order of the lines.
    """
    if form in DOCUMENTS:
        return _documents(output, form)
    target = output / f"transcripts.{form}"
    partial = target.with_suffix(f".{form}.partial")
    with (output / TRANSCRIPTS).open("rb") as results, partial.open("w", encoding="utf-8") as written:
        for offset in _order(output, form):
            results.seek(offset)
            fields = json.loads(results.readline())
            if form in LINES:
                written.write(LINES[form](Timed.of_fields(fields)))
            else:
                written.write(f"{_shown(fields['audio'])}: {fields[PREDICTED]}\n")
    partial.replace(target)
    return target


def _order(output: Path, form: str) -> list[int]:
    """Returns the first bytes of the lines of a job's results, in the order of the form."""
    found: list[tuple[str, float, int]] = []
    place = 0
    with (output / TRANSCRIPTS).open("rb") as results:
        for line in results:
            key = ("", 0.0)
            if form in LINES:
                fields = json.loads(line)
                key = file_id(fields["audio"]), fields.get("offset") or 0.0
            found.append((*key, place))
            place += len(line)
    return [place for *_, place in sorted(found)]


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


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
