"""Runs an experiment by its name, `python -m experiments NAME ...`; without a name it lists all experiments.

Without a clone it is `nemojax experiments NAME ...`.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from experiments.harness.checks import EXTRAS, needed
from experiments.harness.command import PROGRAM


class Command(NamedTuple):
    """A command of the list."""

    module: str  # in `experiments`; its `main(arguments)` returns the exit code
    question: str


COMMANDS = {
    "train": Command("training.train", "Train a model, or resume a run."),
    "export": Command("training.export", "Make a model directory from a training checkpoint."),
    "synthesis": Command("synthesis.corpus", "Make synthetic speech with manifests to train on."),
    "released": Command("released.run", "Do the released weights have the published WER, speed and delay?"),
    "evaluate": Command("accuracy.evaluate", "What are a model's WER and CER at each look-ahead?"),
    "judge": Command("accuracy.judge", "How good are models on your speech? WER, case, delay, speed, errors by word."),
    "word_times": Command("accuracy.word_times", "How long after its sound does the model emit a word?"),
    "utterance_ends": Command("accuracy.utterance_ends", "How soon is the end of an utterance decided?"),
    "confidence": Command("accuracy.confidence", "How well does the confidence of a word tell whether it is right?"),
    "compare_accuracy": Command("accuracy.study", "On what does accuracy depend? Look-ahead, left context, noise, ..."),
    "compare_fine_tuned": Command("accuracy.fine_tuned", "What did fine-tuning teach a model, and what did it forget?"),
    "compare_references": Command("references.compare", "Do NeMo and transformers give the same labels?"),
    "golden": Command("references.golden", "Make the golden values of tests/golden with NeMo and transformers."),
    "compare_latency": Command("latency.compare", "How long does a step take, here and in the peers?"),
    "cost_growth": Command("speed.growth", "How does a step's cost grow?"),
    "search_cost": Command("speed.search_cost", "What does a beam search cost, beside greedy search?"),
    "fusion_cost": Command("speed.fusion_cost", "What do a language model and phrases cost?"),
    "compare_versions": Command("speed.versions", "How long does a step take in other versions of the code?"),
    "profile_step": Command("speed.profile", "Where does a step's time go?"),
    "roofline": Command("speed.roofline", "How long must a step of many streams take at least on a device?"),
    "capacity": Command("speed.capacity", "How many live streams does a card's memory hold?"),
    "benchmark_streams": Command("speed.streams", "How many live streams does a machine serve?"),
    "engine_overhead": Command("speed.engine_overhead", "How many chunks a second does the engine's own work allow?"),
    "gpu": Command("gpu.run", "Is it correct and how fast is it on a GPU? Stages within seven minutes."),
    "benchmark_loss": Command("speed.loss", "What does the RNN-T loss cost, in time and memory?"),
    "benchmark_data": Command("speed.data", "Does the data pipeline keep up with training?"),
    "record": Command("record.record", "Make all tables and plots of the documents from the results."),
    "notebooks": Command("record.notebooks", "Run the notebooks and keep their outputs."),
    "api_pages": Command("record.api_pages", "Build the API pages of nemojax and convert."),
}
INTERRUPTED = 128 + 2


def usage() -> str:
    """Returns the list of all commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.question}" for name, command in COMMANDS.items()]
    return "\n".join([f"usage: {PROGRAM} NAME ... (NAME --help lists its settings)", "", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named command; returns its exit code, or 2 for an unknown name."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    name = arguments[0].replace("-", "_")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"error: there is no experiment {arguments[0]!r}{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        code: int = importlib.import_module(f"experiments.{COMMANDS[name].module}").main(arguments[1:])
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if not any(module in modules for modules in EXTRAS.values()):
            raise
        print(f"error: {name}: {needed(module)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while a module is imported, or in a command without a handler of its own
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
