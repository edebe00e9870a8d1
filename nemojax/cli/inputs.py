"""The recordings that a command line names: files, and the lines of manifests."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nemojax.audio.manifest import Manifest, Request
from nemojax.audio.shard_names import manifest_paths
from nemojax.audio.source import Recording
from nemojax.cli.options import MANIFESTS
from nemojax.errors import AudioError
from nemojax.text.formats import Timed
from nemojax.text.transcript import Transcript


class Input(NamedTuple):
    """A recording, or the error in its place."""

    name: str
    source: str | Recording | AudioError
    manifest: str | None = None
    request: Request | None = None  # the line of the manifest; None for a file, and for a whole manifest with an error
    channel: int | None = None  # from 0 on, where each channel is a recording of its own; `name` has it too

    def timed(self, result: Transcript) -> Timed:
        """Returns what the forms with times need of a result; their channels count from 1."""
        name = self.name if self.channel is None else self.name.removesuffix(channel_suffix(self.channel))
        offset_s = self.source.offset_s if isinstance(self.source, Recording) else 0.0
        return Timed.of(name, result, offset_s, (self.channel or 0) + 1)

    def to_dict(self, result: Transcript | AudioError) -> dict[str, Any]:
        """Returns the fields of the JSON form of a result, or of the error of a line of a manifest."""
        if self.request is not None and self.manifest is not None:
            # here, because it imports jax, which takes seconds
            from nemojax.recognition.results import result_fields

            return {"manifest": self.manifest, **result_fields(self.request, result, self.manifest)}
        assert isinstance(result, Transcript)
        return result.to_dict(self.name)


def channel_suffix(channel: int) -> str:
    """Returns what the name of a recording that is one channel of a file has after it."""
    return f" channel {channel}"


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
