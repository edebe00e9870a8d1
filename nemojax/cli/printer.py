"""Printing of results, errors and notes."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nemojax.audio.source import MODEL_RATE_HZ, AudioSource
from nemojax.cli.inputs import Input
from nemojax.errors import AudioError, shown
from nemojax.text.json_lines import json_line
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:
    from nemojax.recognition.stream import Stream


class Printer:
    """Prints results and errors, and sets the exit code."""

    def __init__(self, json: bool, named: bool) -> None:
        self.json, self.named, self.exit_code = json, named, 0

    def print_result(self, given: Input, result: Transcript | AudioError) -> None:
        """Prints the transcript or the error of one recording."""
        if isinstance(result, AudioError):
            return self._print_error(given, result)
        self._print_notes(given.name, result.notes)
        self._print_text((f"{shown(given.name)}: " if self.named else "") + result.text + "\n")
        self._print_json(given, result)

    def print_stream(
        self,
        given: Input,
        source: AudioSource | AudioError,
        stream: "Stream",
        live: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Streams one recording; prints text as soon as it is recognized, paced in real time if `live`.

        Once `stopped` is true, the recording ends there, and its text is finished.
        """
        if isinstance(source, AudioError):
            return self._print_error(given, source)
        early = source.notes
        self._print_notes(given.name, early)
        try:
            if self.named:
                self._print_text(f"{shown(given.name)}: ")
            due_s = time.monotonic()
            while not stopped() and len(samples := source.read_available(stream.chunk_samples)):
                due_s += len(samples) / MODEL_RATE_HZ
                if live:
                    time.sleep(max(due_s - time.monotonic(), 0))
                self._print_text(stream.push(samples).text)
            printed = len(stream.text)
            transcript = stream.finish()
            transcript = replace(transcript, notes=(*source.notes, *transcript.notes))
            self._print_text(stream.text[printed:] + "\n")
            self._print_json(given, transcript)
            self._print_notes(given.name, [note for note in source.notes if note not in early])
        except AudioError as error:
            self._print_text("\n")
            self._print_error(given, error)
        finally:
            source.close()

    def _print_text(self, text: str) -> None:
        if not self.json:
            print(text, end="", flush=True)

    def _print_notes(self, name: str, notes: Sequence[str]) -> None:
        if notes:
            print(f"{shown(name)}: {', '.join(notes)}", file=sys.stderr)

    def _print_json(self, given: Input, result: Transcript | AudioError) -> None:
        if self.json:
            print(json_line(given.to_dict(result), sys.stdout.encoding or "utf-8"), flush=True)

    def _print_error(self, given: Input, error: AudioError) -> None:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        if given.request is not None:  # a failed line of a manifest has a result too
            self._print_json(given, error)
        self.exit_code = 1
