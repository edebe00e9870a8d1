"""Settings of runs: presets, what may change when a run is resumed, and names that were changed."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from experiments.training import train
from experiments.training.presets import PRESETS, Experiment, changes, current_names, source
from nemojax.data.corpus import Source
from nemojax.data.waveform import WaveformConfig
from nemojax.errors import ConfigError


def recorded(experiment):
    return json.loads(experiment.to_json())


def test_presets_are_the_familys():
    family = PRESETS["family"][1]
    assert family.training.betas == (0.9, 0.98) and family.training.warmup_steps == 10_000
    assert family.training.spec_augment.time_masks == 10 and family.training.fastemit == 5e-3
    assert family.model.encoder.layers == 24 and set(PRESETS) == {"family", "tune", "114m", "small", "smoke"}


def test_changes_are_named_unless_they_are_free():
    first = Experiment(run=Path("a"), steps=5)
    other = dataclasses.replace(first, run=Path("b"), steps=7, workers=0, keep=1, tensorboard=True)
    assert changes(recorded(first), recorded(other)) == {}
    other = dataclasses.replace(
        other, train=("x",), training=dataclasses.replace(first.training, dither=1.0, frozen=("a",))
    )
    assert changes(recorded(first), recorded(other)) == {
        "train": ([], ["x"]),
        "training.dither": (1e-5, 1.0),
        "training.frozen": ([], ["a"]),
    }
    assert changes({"losses": {"a": 1.0}}, {}) == {"losses": ({"a": 1.0}, None)}
    # a group's setting is compared even if a free setting has the same name
    assert changes({"plan": {"run": 1}}, {"plan": {"run": 2}}) == {"plan.run": (1, 2)}


def former(experiment):
    settings = recorded(experiment)
    settings["filters"]["keep_unspelled"] = settings["filters"].pop("keep_out_of_vocabulary")
    settings["waveform"]["noise_colour"] = settings["waveform"].pop("noise_color")
    for name in WaveformConfig.ADDED:
        del settings["waveform"][name]
    return settings


def test_settings_with_former_names_are_the_same():
    experiment = Experiment(run=Path("a"))
    assert current_names(former(experiment)) == recorded(experiment)
    assert not changes(current_names(former(experiment)), recorded(experiment))


def test_former_settings_and_flags_are_read(tmp_path, capsys):
    experiment = dataclasses.replace(PRESETS["smoke"][1], run=tmp_path, train=("x.jsonl",))
    settings = former(experiment)
    settings["filters"]["keep_unspelled"], settings["waveform"]["noise_colour"] = True, [0.5, 1.0]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert train.main(["--settings", str(tmp_path / "settings.json"), "--print-settings"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["filters"]["keep_out_of_vocabulary"] is True and printed["waveform"]["noise_color"] == [0.5, 1.0]
    flags = ["--filters.keep-unspelled", "--waveform.noise_colour", "0.5", "1.0", "--print-settings"]
    assert train.main(["smoke", str(tmp_path), "--train", "x.jsonl", *flags]) == 0
    assert json.loads(capsys.readouterr().out) == printed


def test_a_manifest_with_its_weight(tmp_path):
    assert source("a.jsonl") == Source(Path("a.jsonl")) and source("a=b.jsonl=0.5") == Source(Path("a=b.jsonl"), 0.5)
    assert source("a=b.jsonl") == Source(Path("a=b.jsonl"))
    with pytest.raises(ConfigError, match="weight must be"):
        source("a.jsonl=0")
    with pytest.raises(ConfigError, match="name the manifests"):
        Experiment(run=tmp_path).sources()


@pytest.mark.parametrize("name", ["steps", "evaluate_every", "save_every", "keep", "dev_utterances", "dev_batch"])
def test_wrong_settings(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
        Experiment(**{name: 0})


def test_each_flag_has_a_help_text_of_its_own(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        train.main(["family", "--help"])
    texts: dict[str, str] = {}
    flag = ""
    for line in capsys.readouterr().out.splitlines():
        inside = line[1:-1].rstrip()  # of the frame
        if re.match(r" --\w", inside):
            flag = inside.split()[0].rstrip(",")
            texts[flag] = ""
        elif inside.startswith("       ") and flag:
            texts[flag] += f" {inside.strip()}"
    plain = {flag: text.partition("(default:")[0].strip() for flag, text in texts.items()}
    assert "--training.betas" in plain and [flag for flag, text in plain.items() if not text] == []
    assert len(set(plain.values())) == len(plain)


def test_runs_of_before_have_the_schedule_of_before():
    now = recorded(Experiment())
    before = dict(now, training={k: v for k, v in now["training"].items() if k not in ("schedule", "train_only")})
    assert changes(current_names(before), now) == {}


def test_a_pattern_has_a_flag_of_its_own(capsys):
    command = ["tune", "run", "--init", "model", "--train-only", "joint|prediction", "--print-settings"]
    assert train.main(command) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["training"]["train_only"] == "joint|prediction" and made["training"]["schedule"] == "constant"
    with pytest.raises(SystemExit):
        train.main(["tune", "run"])
    assert "--init" in capsys.readouterr().err
