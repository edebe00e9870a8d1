"""Running an experiment, and reading its losses."""

from pathlib import Path

from experiments.training.loop import Run
from experiments.training.presets import Experiment
from experiments.training.run_directory import read_metrics

TEXTS = ["one two three", "four five", "bin blue at f two now", "set red by a zero please", "six", "lay green in b one"]
STEPS = 12


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(run / "metrics.jsonl") if row["kind"] == "train"]


def messages(experiment: Experiment) -> list[str]:
    found: list[str] = []
    Run(experiment, found.append).train()
    return found
