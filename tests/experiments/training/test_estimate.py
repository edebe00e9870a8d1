"""The memory of a step from shapes, and runs that only say what they would do."""

import dataclasses

import pytest

from experiments.training import estimate, train
from experiments.training.estimate import Memory, largest, step_memory, verdict
from nemojax import checkpoint
from nemojax.data.buckets import Bucket
from nemojax.data.train_tokenizer import train as train_tokenizer
from nemojax.kernels.quantization import quantize
from nemojax.training.lora import LoraConfig
from nemojax.training.recipe import TrainingConfig
from tests.experiments.training.runs import TEXTS

GB = 10**9


def with_layers(config, layers):
    return dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=layers))


def test_further_blocks_are_added(tiny_config, monkeypatch):
    compiled = []

    def memory(config, recipe, bucket, mesh):
        compiled.append(config.encoder.layers)
        return Memory(100 + 10 * config.encoder.layers, 7, 1000 + config.encoder.layers)

    monkeypatch.setattr(estimate, "compiled_memory", memory)
    bucket, deep = Bucket(14, 8, 2), with_layers(tiny_config, 10)
    assert step_memory(deep, TrainingConfig(), bucket) == (200, 7, 1010) and compiled == [3, 6]
    # a pattern that names a block: all of them are compiled
    assert step_memory(deep, TrainingConfig(frozen=("encoder.blocks.7.*",)), bucket) == (200, 7, 1010)
    assert compiled == [3, 6, 10]
    step_memory(with_layers(tiny_config, 6), TrainingConfig(lora=LoraConfig(rank=2)), bucket)
    assert compiled == [3, 6, 10, 6]


def test_a_card_and_what_fits_it():
    memory = Memory(8 * GB, 1 * GB, 9 * GB)
    parts = "memory of a step: 18.0 GB, of which 8.0 GB are its state and 10.0 GB temporary; it "
    assert verdict(memory, 24) == (parts + "fits a card of 24 GB", True)
    share = " with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: jax takes 75% by itself"
    assert verdict(memory, 20) == (parts + "fits a card of 20 GB" + share, True)
    text, fits = verdict(memory, 16)
    assert not fits and text.startswith(parts + "does not fit a card of 16 GB: set a lower --plan.batch-frames, ")
    assert largest((Bucket(14, 8, 10), Bucket(28, 16, 5), Bucket(42, 16, 3))) == Bucket(28, 16, 5)


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tmp_path, speech, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "step_memory", lambda *given: Memory(60 * GB, 0, 4 * GB))
    run = tmp_path / "run"
    given = ["fine-tune", str(run), "--train", str(speech[0]), "--dev", str(speech[1]), "--dry"]
    assert train.main([*given, "--card-gb", "64"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("nvidia/nemotron-speech-streaming-en-0.6b is not on this machine: its settings are taken")
    assert [line.partition(":")[0] for line in out[2:]] == [
        *("devices", "parameters", "audio", "batch", "learning rate"),
        out[7].partition(":")[0],
        "memory of a step",
    ]
    assert out[8].endswith("--training.remat or --lora 16") and not run.exists()
    assert train.main(given) == 0 and not run.exists()  # on 80 GB


def test_weights_in_int8_are_refused_before_the_run(tmp_path, speech, tiny_model, capsys):
    checkpoint.save(tmp_path / "int8", quantize(tiny_model), train_tokenizer(TEXTS, 30), {})
    given = ["fine-tune", str(tmp_path / "run"), "--train", str(speech[0]), "--dev", str(speech[1]), "--dry"]
    assert train.main([*given, "--init", str(tmp_path / "int8")]) == 2
    message = f"error: {tmp_path / 'int8'} has weights in int8; take the checkpoint that it was made from instead"
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_what_a_new_tokenizer_draws_again_must_be_trained(tmp_path, speech, capsys):
    (tmp_path / "new.model").write_bytes(train_tokenizer(TEXTS, 30))
    given = ["fine-tune-lora", str(tmp_path / "run"), "--train", str(speech[0]), "--dev", str(speech[1]), "--dry"]
    assert train.main([*given, "--tokenizer", str(tmp_path / "new.model")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: another tokenizer draws prediction.embedding, joint.output.kernel, joint.output.bias again, and they "
        'are not trained; add --train-only "joint|prediction", or remove what freezes them'
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [TrainingConfig(remat=True), TrainingConfig(lora=LoraConfig(rank=4), remat=True)])
def test_the_memory_of_a_deep_model_is_that_of_its_blocks(tiny_config, recipe):
    """And without the backward pass's own copies, `remat` saves memory on a CPU too."""
    encoder = dataclasses.replace(tiny_config.encoder, layers=9, width=128, feedforward_width=512)
    config = dataclasses.replace(tiny_config, encoder=encoder)
    bucket = Bucket(126, 16, 4)
    estimated, compiled = step_memory(config, recipe, bucket), estimate.compiled_memory(config, recipe, bucket, None)
    assert estimated.arguments == compiled.arguments
    assert estimated.temporary == pytest.approx(compiled.temporary, rel=0.03)
    kept = estimate.compiled_memory(config, dataclasses.replace(recipe, remat=False), bucket, None)
    assert compiled.temporary < 0.8 * kept.temporary
