"""Data sets of Hugging Face's `datasets` as manifests: `datasets:NAME[,CONFIG],SPLIT`, or `datasets:DIRECTORY`.

The audio is not decoded: files of a data set go into a tar file as they are, with a manifest beside it.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from experiments.harness.checks import needed
from nemojax.errors import ConfigError

PREFIX = "datasets:"
AUDIO = "audio"  # the column, whatever name it has in a data set
TEXTS = ("text", "sentence", "transcription", "transcript", "normalized_text")  # columns, the first that is there


def manifest_of(name: str, directory: Path) -> Path:
    """Returns the manifest of a data set, which is made in a directory unless it is there.

    Args:
      name: `datasets:NAME,SPLIT` or `datasets:NAME,CONFIG,SPLIT` of a data set on the hub, or `datasets:DIRECTORY` of
        one that `save_to_disk` wrote.

    Raises:
      ConfigError: it can't be loaded, or has no audio and text.
    """
    manifest = directory / f"{re.sub('[^A-Za-z0-9.-]+', '_', name.removeprefix(PREFIX)).strip('_')}.jsonl"
    if manifest.exists():
        return manifest
    rows = _load(name.removeprefix(PREFIX))
    partial, archive = manifest.with_suffix(".partial"), manifest.with_suffix(".tar")
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar, partial.open("w", encoding="utf-8") as file:
        for entry, content in _entries(rows, name):
            member = tarfile.TarInfo(entry["audio_filepath"])
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    os.replace(partial, manifest)  # last: where it exists, the tar file is whole
    return manifest


def _load(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(needed("datasets")) from None
    try:
        if Path(name).is_dir():
            loaded = datasets.load_from_disk(name)
        else:
            *place, split = name.split(",")
            if not place:
                raise ValueError("there is no such directory; a data set on the hub has its split after a comma")
            loaded = datasets.load_dataset(*place, split=split)
        if isinstance(loaded, dict):
            raise ValueError(f"it has the splits {', '.join(loaded)}; name one after a comma")
        audio = next((key for key, feature in loaded.features.items() if isinstance(feature, datasets.Audio)), None)
        if audio is None:
            raise ValueError(f"it has no column of audio, but {', '.join(loaded.features)}")
        loaded = loaded.cast_column(audio, datasets.Audio(decode=False))
        return loaded if audio == AUDIO else loaded.rename_column(audio, AUDIO)
    except Exception as error:  # of the library, the hub's client and the system
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"the data set {name} can't be loaded: {reason}") from None


def _entries(rows: Any, name: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yields the line of the manifest and the audio file of each row."""
    text = next((key for key in TEXTS if key in rows.features), None)
    if text is None:
        raise ConfigError(f"{name} has no column of text ({', '.join(TEXTS)}), but {', '.join(rows.features)}")
    for number, row in enumerate(rows):
        content = _content(row[AUDIO])
        yield {"audio_filepath": f"{number:07d}.audio", "text": str(row[text])}, content


def _content(audio: Mapping[str, Any]) -> bytes:
    """Returns the audio file of a row."""
    content = audio.get("bytes")
    return bytes(content) if content is not None else Path(str(audio["path"])).read_bytes()
