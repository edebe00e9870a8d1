"""The sets to transcribe: LibriSpeech as it is distributed, and manifests, named after the sets of the leaderboard."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.harness.hf_dataset import PREFIX, manifest_of
from experiments.released.known import SETS
from nemojax.errors import ConfigError

LIBRISPEECH = {"test-clean": "librispeech-clean", "test-other": "librispeech-other"}  # folders, and their sets
DEPTH = ("", "*/", "*/*/")  # where these folders are looked for
TRANSCRIPTS = "*.trans.txt"
# what a manifest's name has, in this order: words between other characters
WORDS = {
    "librispeech-clean": ("test clean", "librispeech clean", "ls clean"),
    "librispeech-other": ("test other", "librispeech other", "ls other"),
    "earnings22": ("earnings22", "earnings 22", "e22"),
    "ami": ("ami",),
    "gigaspeech": ("gigaspeech", "giga"),
    "spgispeech": ("spgispeech", "spgi"),
    "tedlium": ("tedlium", "ted lium"),
    "voxpopuli": ("voxpopuli",),
}

OTHER_PARTS = {"train", "dev", "validation"}  # of a corpus; no figures are published for them


class Named(NamedTuple):
    """A manifest, and the set that it is; a name of its own where no figures are published for it."""

    name: str
    manifest: Path


def find_sets(data: Sequence[str], output: Path) -> list[Named]:
    """Returns the sets that arguments name, each once.

    Args:
      data: folders of LibriSpeech, manifests or data sets (`datasets:NAME,SPLIT`) whose names tell the set, or
        SET=MANIFEST.
      output: directory for the manifests of LibriSpeech's folders and of data sets.

    Raises:
      ConfigError: a folder has no LibriSpeech, or a set is named twice.
    """
    found: list[Named] = []
    for argument in data:
        name, equals, path = argument.partition("=")
        if equals and name in SETS:
            found.append(Named(name, manifest_of(path, output) if path.startswith(PREFIX) else Path(path)))
        elif argument.startswith(PREFIX):
            found.append(Named(set_of(argument.removeprefix(PREFIX)), manifest_of(argument, output)))
        elif Path(argument).is_dir():
            found += _librispeech(Path(argument), output)
        else:
            found.append(Named(set_of(Path(argument).name), Path(argument)))
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"the set {twice} is named twice; write NAME=MANIFEST with one of {', '.join(SETS)}")
    return found


def set_of(file: str) -> str:
    """Returns the set that a manifest's name tells, or the name without its ending."""
    words = f" {' '.join(re.findall('[a-z0-9]+', file.lower()))} "
    for name, forms in WORDS.items() if not OTHER_PARTS & set(words.split()) else ():
        if any(f" {form} " in words for form in forms):
            return name
    return file.partition(".")[0]


def _librispeech(folder: Path, output: Path) -> Iterator[Named]:
    """Writes a manifest for each test set of LibriSpeech in a folder, or in a folder of it."""
    places = {folder.name: folder} if folder.name in LIBRISPEECH else {}
    for depth in DEPTH:
        for place in sorted(path for name in LIBRISPEECH for path in folder.glob(depth + name)):
            places.setdefault(place.name, place)
    if not places:
        raise ConfigError(f"{folder} has no {' or '.join(LIBRISPEECH)}, as LibriSpeech is distributed")
    for name, place in sorted(places.items()):
        lines = [line for path in sorted(place.rglob(TRANSCRIPTS)) for line in _entries(path)]
        if not lines:
            raise ConfigError(f"{place} has no transcripts ({TRANSCRIPTS})")
        manifest = output / f"{name}.jsonl"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        yield Named(LIBRISPEECH[name], manifest)


def _entries(path: Path) -> Iterator[dict[str, str]]:
    """Yields the lines of a manifest for the recordings of a chapter."""
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition(" ")
        yield {
            "audio_filepath": str((path.parent / f"{name}.flac").absolute()),
            "text": text.lower(),
            "speaker": name.partition("-")[0],
        }
