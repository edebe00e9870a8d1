"""Settings that are printed, kept and read again, for every command line; and exit codes."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import tyro

from experiments import __main__ as experiments
from experiments.accuracy import evaluate
from experiments.harness.command import INTERRUPTED, command, ending
from experiments.harness.settings import from_json, load, to_json
from experiments.training import train
from experiments.training.presets import PRESETS, RECORDED, Experiment
from nemojax.errors import ConfigError

NEEDED = {
    "evaluate": ["model", "a.jsonl", "b c.jsonl"],
    "compare_accuracy": ["model", "a.jsonl"],
    "compare_fine_tuned": ["before", "after"],
    "compare_references": ["model", "a.jsonl"],
    "compare_latency": ["work"],
    "cost_growth": [],
    "roofline": [],
    "capacity": [],
    "compare_versions": ["before=a", "after=b"],
    "engine_overhead": [],
    "benchmark_streams": ["model", "a.jsonl"],
    "benchmark_data": ["a.jsonl"],
    "benchmark_loss": [],
    "gpu": [],
    "export": ["run", "out"],
    "profile_step": [],
    "synthesis": ["out"],
    "train": ["smoke", "run"],
    "word_times": ["model", "a.jsonl"],
    "judge": ["model", "a.jsonl"],
    "released": ["model", "LibriSpeech"],
    "utterance_ends": ["model", "a.jsonl"],
    "confidence": ["model", "a.jsonl"],
    "search_cost": [],
    "fusion_cost": [],
}
OTHERWISE = {
    "evaluate": "--lookaheads 6 1 --stream --normalizer none --limit 3 --plot a.svg --confidence 0.5",
    "compare_accuracy": "--study noise --conditions lookahead=6,left=35 lookahead=1 --limit 2",
    "compare_fine_tuned": "--new a.jsonl --old b.jsonl c.jsonl --lookaheads 6 --stream --confidence 0.9",
    "compare_references": "--lookaheads 1 --limit 4 --output x/y.jsonl",
    "compare_latency": "--manifests a b --contenders --batch-seconds 30 2.5 --threads 1",
    "cost_growth": "--grow-seconds 1 2.5 --grow-streams --dtype int8 --plot a.png",
    "engine_overhead": "model --lookaheads 6 --streams 100 --labels-per-frame 0.5",
    "roofline": "--lookaheads 1 6 --streams 8 16 --device card --bytes-per-second 1e12",
    "capacity": "--lookaheads 1 --caches int8 --streams 8 16 --cards-gb 24 --memory-fraction 0.75",
    "compare_versions": "--dtype bfloat16 --lookaheads 1 --streams 8 16 --repeats 2 --seed 1",
    "benchmark_streams": "--resolution 0.25 --lookaheads 1 --dtype float32",
    "benchmark_data": "--workers 0 --waveforms recipe",
    "benchmark_loss": "--frames-per-block 8 --measure fused small forward",
    "gpu": "--stages b,c --dry --workers 2 --sizes.points 8@1/fused --sizes.engine-s 2.5",
    "profile_step": "model --lookahead 1 --dtype int8 --each-block --audio a.wav",
    "export": "--step 7 --dtype bfloat16 --average 3",
    "synthesis": "--texts a b --programs espeak-ng --compression 0.5 --format flac",
    "judge": "--against b c --lookaheads 6 --stream-limit 3 --normalizer whisper --dtype int8",
    "released": "--release january --lookaheads 6 1 --stream-limit 0 --limit 5 --dtype bfloat16",
    "utterance_ends": "--lookaheads 6 1 --silence-ms 400 800 --range-db 30 --limit 3",
    "confidence": "--measures tsallis gibbs,lin --lookahead 1 --limit 3",
    "search_cost": "model --widths 2 4 --streams 1 --lookaheads 6 --dtype int8",
    "fusion_cost": "model --phrases 1 10 --streams 2 --lookaheads 6 --sentences 30",
    "word_times": "--lookaheads 6 1 --range-db 12.5 --limit 3",
    "train": "--train a=2 b --dev c --init d --steps 5 --model.vocabulary 99 --model.encoder.lookaheads 6 1 "
    "--training.skip-norm inf --training.frozen encoder.* --training.betas 0.8 0.9 "
    "--waveform.noise-manifests n --training.spec-augment.time-masks 3 --mesh-data -1 --distributed --process 1 "
    "--replay e --replay-share 0.5 --track wandb --dry --train-only joint --lora 4 --training.schedule cosine",
}


def main(name: str):
    return lambda arguments: experiments.main([name, *arguments])


@pytest.fixture
def printed(capsys):
    """What a command line prints; its standard error is empty, unless it ends with 2."""

    def call(name: str, *arguments: str, code: int = 0) -> str:
        try:
            assert main(name)(list(arguments)) == code
        except SystemExit as exit:
            assert exit.code == code
        out, err = capsys.readouterr()
        assert (not err) == (not code) and "Traceback" not in err
        return err if code else out

    return call


def test_every_command_with_settings_is_tested():
    without = {"golden", "record", "notebooks", "api_pages"}
    assert set(experiments.COMMANDS) == set(NEEDED) | without and set(NEEDED) == set(OTHERWISE)


@pytest.mark.parametrize("name", NEEDED)
def test_printed_settings_read_again_are_printed_the_same(name, printed, tmp_path):
    before = set(tmp_path.iterdir())
    file, defaults = tmp_path / "settings.json", printed(name, *NEEDED[name], "--print-settings")
    changed = printed(name, *NEEDED[name], *OTHERWISE[name].split(), "--print-settings")
    assert set(tmp_path.iterdir()) == before  # it did not run
    values = json.loads(changed)
    assert set(values) == set(json.loads(defaults)) and changed != defaults
    for text in (defaults, changed):
        file.write_text(text)
        assert printed(name, "--settings", str(file), "--print-settings") == text
    file.write_text(defaults)
    flags = [*NEEDED[name][name == "train" :], *OTHERWISE[name].split()]  # which go before the file
    assert printed(name, "--print-settings", "--settings", str(file), *flags) == changed


def test_flags_come_before_the_file_and_the_file_before_defaults(tmp_path, capsys):
    ran = []
    run = lambda settings: ran.append(settings) or 1
    (tmp_path / "s.json").write_text('{"model": "m", "lookaheads": [6], "confidence": 1, "limit": 3}')
    arguments = ["--settings", str(tmp_path / "s.json"), "other", "a.jsonl", "--limit", "4"]
    assert command(evaluate.Settings, run, "evaluate", None, arguments) == 1
    expected = evaluate.Settings(Path("other"), (Path("a.jsonl"),), (6,), confidence=1.0, limit=4)
    assert ran == [expected] and type(ran[0].confidence) is float
    (tmp_path / "s.json").write_text('{"limit": 3}')
    with pytest.raises(SystemExit):  # neither the command line nor the file names the model
        evaluate.main(arguments[:2])
    assert "MODEL" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "--print-settings prints all settings as JSON" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "name, earlier, now",
    [
        ("evaluate", "--normaliser none", {"normalizer": "none"}),
        ("compare_accuracy", "--normaliser none", {"normalizer": "none"}),
        ("benchmark_streams", "--first 2 --most 64", {"min_streams": 2, "max_streams": 64}),
    ],
)
def test_earlier_names_of_settings_still_work(name, earlier, now, printed, tmp_path):
    values = json.loads(printed(name, *NEEDED[name], *earlier.split(), "--print-settings"))
    assert now.items() <= values.items()
    flags = [flag.removeprefix("--") for flag in earlier.split() if flag.startswith("--")]
    old = {key: value for key, value in values.items() if key not in now} | dict(zip(flags, now.values(), strict=True))
    (tmp_path / "s.json").write_text(json.dumps(old))
    assert json.loads(printed(name, "--settings", str(tmp_path / "s.json"), "--print-settings")) == values


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset, printed, tmp_path):
    text = printed("train", preset, "run", "--print-settings")
    assert json.loads(text) == json.loads(dataclasses.replace(PRESETS[preset][1], run=Path("run")).to_json())
    assert from_json(Experiment, json.loads(text)) == dataclasses.replace(PRESETS[preset][1], run=Path("run"))
    (tmp_path / "s.json").write_text('{"steps": 7, "model": {"vocabulary": 99}}')
    values = json.loads(printed("train", preset, "run", "--settings", str(tmp_path / "s.json"), "--print-settings"))
    model = dataclasses.replace(PRESETS[preset][1].model, vocabulary=99)  # what the file leaves out is the preset's
    assert from_json(Experiment, values) == dataclasses.replace(
        PRESETS[preset][1], run=Path("run"), steps=7, model=model
    )


def test_the_file_that_a_run_keeps(printed, tmp_path):
    text = printed("train", "smoke", "run", "--train", "a", "--print-settings")
    kept = tmp_path / "settings.json"
    kept.write_text(json.dumps(json.loads(text) | {"started": {"vocabulary": 5}, "data": "f00d"}))
    assert printed("train", "--settings", str(kept), "--print-settings") == text
    values = json.loads(text)
    values["plan"]["buckets"] = [[10, 5, 2], [20, 9, 1]]  # for which there are flags only where the file has some
    kept.write_text(json.dumps(values))
    assert json.loads(printed("train", "--settings", str(kept), "--print-settings")) == values
    kept.write_text(text)
    other = json.loads(printed("train", "other", "--settings", str(kept), "--print-settings"))
    assert other == json.loads(text) | {"run": "other"}
    assert {"started", "data", "losses"} == RECORDED and train.RECORDED is RECORDED


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "can't be read: No such file"),
        (b"{", "is not JSON: "),
        (b"\xff", "is not JSON: "),
        (b"[]", "the whole must be an object with settings by name, not []"),
        (b'{"lookahead": 6}', "unknown settings: lookahead; the settings here are model, manifests, lookaheads"),
        (b'{"lookaheads": 6}', "lookaheads must be a list, not 6"),
        (b'{"lookaheads": [6, "1"]}', 'lookaheads[1] must be a whole number, not "1"'),
        (b'{"limit": true}', "limit must be a whole number or null, not true"),
        (b'{"stream": 1}', "stream must be true or false, not 1"),
        (b'{"plot": 5}', "plot must be a path or null, not 5"),
        (b'{"model": null}', "model must be a path, not null"),
        (b'{"confidence": "high"}', 'confidence must be a number, not "high"'),
        (b'{"normalizer": "plane"}', 'normalizer must be one of "none", "plain", "whisper", not "plane"'),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(content, complaint, printed, tmp_path):
    file = tmp_path / "settings.json"
    if content is not None:
        file.write_bytes(content)
    err = printed("evaluate", "model", "manifest", "--settings", str(file), code=2)
    assert complaint in err and err.startswith(f"error: the settings file {file}") and err.count("\n") == 1


def test_nested_settings_are_named_whole(tmp_path, printed):
    for values, complaint in (
        ({"model": {"encoder": {"width": 2.5}}}, "model.encoder.width must be a whole number, not 2.5"),
        ({"training": {"betas": [0.5]}}, "training.betas must be a list of 2, not [0.5]"),
        ({"plan": {"buckets": [[1, 2, 3], [1, 2]]}}, "plan.buckets[1] must be a list of 3, not [1, 2]"),
        ({"model": {"encoder": {"depth": 2}}}, "unknown settings: model.encoder.depth; the settings here are layers"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
    ):
        (tmp_path / "s.json").write_text(json.dumps(values))
        assert complaint in printed("train", "smoke", "run", "--settings", str(tmp_path / "s.json"), code=2)
    assert "expected one argument" in printed("train", "smoke", "run", "--settings", code=2)


@dataclass(frozen=True)
class Inner:
    number: int
    size: int = 3


@dataclass(frozen=True)
class Outer:
    path: Path
    inner: Inner = Inner(1, 2)


def test_a_file_may_be_partial(tmp_path):
    assert from_json(Outer, {}).path is tyro.MISSING
    assert from_json(Outer, {"path": "p", "inner": {"number": 7}}) == Outer(Path("p"), Inner(7, 2))
    (tmp_path / "s.json").write_text(to_json(Outer(Path("p"), Inner(5))))
    assert load(tmp_path / "s.json", Outer) == Outer(Path("p"), Inner(5))


def test_how_commands_end(capsys):
    def failing(error: BaseException):
        def call(settings: Outer | None = None) -> int:
            raise error

        return call

    class Ours(Exception):
        pass

    assert ending(lambda: 3) == 3 and ending(lambda: None) == 0
    assert ending(failing(ConfigError("so it is"))) == 2 and capsys.readouterr().err == "error: so it is\n"
    assert ending(failing(Ours("x")), (Ours,), 1) == 1
    assert ending(failing(KeyboardInterrupt())) == INTERRUPTED == 130
    for error in (Ours("x"), AssertionError("a fault of ours is a traceback")):
        with pytest.raises(type(error)):
            command(Outer, failing(error), "outer", None, ["--path", "p"])
    assert command(Outer, failing(Ours("x")), "outer", None, ["--path", "p"], catch=(Ours,)) == 2


@pytest.mark.slow
def test_as_programs(tmp_path):
    program = [sys.executable, "-m", "experiments", "evaluate"]
    text = subprocess.run([*program, "model", "m", "--print-settings"], capture_output=True, check=True).stdout
    (tmp_path / "s.json").write_bytes(text)
    again = subprocess.run([*program, "--settings", tmp_path / "s.json", "--print-settings"], capture_output=True)
    assert again.stdout == text and again.returncode == 0
    wrong = subprocess.run([*program, "--settings", tmp_path], capture_output=True, text=True)
    assert (
        wrong.returncode == 2 and wrong.stderr == f"error: the settings file {tmp_path} can't be read: Is a directory\n"
    )
