"""The recordings that a command line names: files, and the lines of manifests."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nemojax.audio.manifest import Manifest, Request
from nemojax.audio.shard_names import manifest_paths
from nemojax.audio.source import Recording
from nemojax.cli.options import MANIFESTS
from nemojax.errors import AudioError
from nemojax.text.transcript import Transcript


class Input(NamedTuple):
    """A recording, or the error in its place."""

    name: str
    source: str | Recording | AudioError
    manifest: str | None = None
    request: Request | None = None  # the line of the manifest; None for a file, and for a whole manifest with an error

    def to_dict(self, result: Transcript | AudioError) -> dict[str, Any]:
        """Returns the fields of the JSON form of a result."""
        if self.request is not None and self.manifest is not None:
            # here, because it imports jax, which takes seconds
            from nemojax.recognition.results import result_fields

            return {"manifest": self.manifest, **result_fields(self.request, result, self.manifest)}
        if isinstance(result, AudioError):
            return {"audio": self.name, "error": str(result)}
        return result.to_dict(self.name)


def expand(files: Sequence[str]) -> Iterator[Input]:
    """Yields every recording; manifests are read line by line."""
    for file in files:
        if not file.endswith(MANIFESTS):
            yield Input(file, file)
            continue
        for manifest in map(str, manifest_paths(file)):
            yield from _lines(manifest)


def _lines(manifest: str) -> Iterator[Input]:
    """Yields the recordings of a manifest, or the error of the whole manifest."""
    count = 0
    try:
        for request in Manifest(manifest).requests():
            count += 1
            name = manifest if isinstance(request.recording, AudioError) else request.recording.name
            yield Input(name, request.recording, manifest, request)
        if not count:
            raise AudioError(f"{manifest}: the manifest names no recording")
    except AudioError as error:
        yield Input(manifest, error, manifest)
