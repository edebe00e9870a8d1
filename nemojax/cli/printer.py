"""Printing of results, errors and notes."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nemojax.audio.source import MODEL_RATE_HZ, AudioSource
from nemojax.cli.inputs import Input
from nemojax.cli.utterance_lines import UtteranceLines
from nemojax.errors import AudioError, shown
from nemojax.text.formats import DOCUMENTS, JSON, LINES, TXT
from nemojax.text.json_lines import json_line
from nemojax.text.transcript import Transcript, Utterance

if TYPE_CHECKING:
    from nemojax.recognition.stream import Stream
    from nemojax.text.inverse import InverseNormalizer


class Printer:
    """Prints results and errors, and sets the exit code.

    Args:
      form: of the results, one of `nemojax.text.formats.FORMATS`.
      named: the text of each recording has its name before it.
      normalizer: changes the text of results once it is final; None leaves it.
    """

    def __init__(self, form: str, named: bool, normalizer: "InverseNormalizer | None" = None) -> None:
        self.form, self.named, self.exit_code, self._normalizer = form, named, 0, normalizer

    def print_result(self, given: Input, result: Transcript | AudioError) -> None:
        """Prints the transcript or the error of one recording."""
        if isinstance(result, AudioError):
            return self._print_error(given, result)
        self._print_notes(given.name, result.notes)
        result = self._normalized(result)
        for text in [utterance.text for utterance in result.utterances] or [result.text]:
            self._print_text(self._prefix(given) + text + "\n")
        self._print_form(given, result)

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
        lines = None
        if stream.decides_ends:
            normalize = None if self._normalizer is None else self._normalizer.utterance
            lines = UtteranceLines(self._prefix(given), normalize)
        try:
            if lines is None:
                self._print_text(self._prefix(given))
            due_s, ended = time.monotonic(), 0
            while not stopped() and len(samples := source.read_available(stream.chunk_samples)):
                due_s += len(samples) / MODEL_RATE_HZ
                if live:
                    time.sleep(max(due_s - time.monotonic(), 0))
                update = stream.push(samples)
                self._print_text(update.text if lines is None else lines.add(update.text, update.final, update.amended))
                self._print_ends(given, update.final, update.amended)
                ended += len(update.final)
            printed = len(stream.text)
            transcript = stream.finish()
            transcript = replace(transcript, notes=(*source.notes, *transcript.notes))
            rest = stream.text[printed:]
            self._print_text(rest + "\n" if lines is None else lines.finish(rest, transcript))
            self._print_ends(given, transcript.utterances[ended:])
            self._print_form(given, self._normalized(transcript))
            self._print_notes(given.name, [note for note in source.notes if note not in early])
        except AudioError as error:
            self._print_text("\n")
            self._print_error(given, error)
        finally:
            source.close()

    def _prefix(self, given: Input) -> str:
        return f"{shown(given.name)}: " if self.named else ""

    def _normalized(self, transcript: Transcript) -> Transcript:
        return transcript if self._normalizer is None else self._normalizer.transcript(transcript)

    def _print_text(self, text: str) -> None:
        if self.form == TXT:
            print(text, end="", flush=True)

    def _print_ends(self, given: Input, final: Sequence[Utterance], amended: Sequence[Utterance] = ()) -> None:
        """Prints an object for each utterance of a stream that has ended, or that has got its punctuation since."""
        if self.form == JSON:
            for event, utterances in (("utterance", final), ("amended", amended)):
                for one in utterances:
                    written = one if self._normalizer is None else self._normalizer.utterance(one)
                    self._print_object({"audio": given.name, "event": event, **written.to_dict()})

    def _print_notes(self, name: str, notes: Sequence[str]) -> None:
        if notes:
            print(f"{shown(name)}: {', '.join(notes)}", file=sys.stderr)

    def _print_form(self, given: Input, result: Transcript | AudioError) -> None:
        """Prints a result in its form, if that is not text; an error has a JSON form alone."""
        if self.form == JSON:
            self._print_object(given.to_dict(result))
        elif self.form != TXT and isinstance(result, Transcript):
            print((DOCUMENTS | LINES)[self.form](given.timed(result)), end="", flush=True)

    def _print_object(self, fields: dict[str, Any]) -> None:
        print(json_line(fields, sys.stdout.encoding or "utf-8"), flush=True)

    def _print_error(self, given: Input, error: AudioError) -> None:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        if given.request is not None:  # a failed line of a manifest has a result too
            self._print_form(given, error)
        self.exit_code = 1
