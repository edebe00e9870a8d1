import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemojax import compilation
from nemojax.recognition.offline import segment_lengths
from nemojax.recognition.stream_batch import StreamBatch
from nemojax.warm import warm

USE = """
import asyncio, sys
import numpy as np, nemojax
from nemojax.compilation import Watch

async def serve(recognizer):
    async with nemojax.Engine(recognizer, 1, slots=(2, 3)):
        pass

with Watch() as watch:
    recognizer = nemojax.load(sys.argv[1])
    sound = np.sin(np.arange(200_000) / 20)
    stream = recognizer.stream(1)
    stream.push(sound[:30_000])
    stream.finish()
    recognizer.transcribe(sound, 1, batch_size=2)
    recognizer.transcribe([sound[:n] for n in (90_000, 100_000, 200_000)], 1, batch_size=2)
    asyncio.run(serve(recognizer))
print(len(watch.read), watch.compiled)
"""


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_it_compiles_every_shape_of_streams_batches_and_engines(recognizer, monkeypatch, backend):
    compiled, kept, started, steps = set(), set(), [], []
    monkeypatch.setattr(
        StreamBatch, "compile", lambda batch, samples: compiled.add((batch.lookahead, batch.size, samples))
    )
    monkeypatch.setattr(StreamBatch, "keep", lambda batch, rows: kept.add((batch.lookahead, batch.size, len(rows))))
    monkeypatch.setattr("nemojax.warm.Engine._compile", lambda engine: started.append((engine.lookahead, engine.sizes)))
    monkeypatch.setattr("nemojax.warm.jax.default_backend", lambda: backend)
    warm(recognizer, (1, 0), 4, (3, 2), lambda done, count: steps.append((done, count)))
    lengths, chunk = segment_lengths(recognizer.config), recognizer.config.chunk_samples
    batches = {(lookahead, size, samples) for lookahead in (0, 1) for size in (4, 2, 1) for samples in lengths}
    assert compiled == batches | {(0, 1, chunk(0)), (1, 1, chunk(1))}
    smaller = {(lookahead, *pair) for lookahead in (0, 1) for pair in ((4, 2), (4, 1), (2, 1))}
    assert kept == (smaller if backend == "cpu" else set())
    assert started == [(1, (2, 3)), (0, (2, 3))] and steps[-1] == (len(steps), len(steps))

    compiled.clear()
    warm(recognizer, batch_size=0)
    assert compiled == {(13, 1, chunk(13))}


@pytest.mark.slow
def test_a_later_process_compiles_nothing(checkpoint_directory, tmp_path):
    environment = os.environ | {compilation.SWITCH: str(tmp_path)}
    for name in (compilation.DIRECTORY.upper(), compilation.MIN_SECONDS.upper()):
        environment.pop(name, None)
    command = [sys.executable, "-m", "nemojax.cli", "warm", "--model", checkpoint_directory]
    options = ["--lookahead", "1", "--batch-size", "2", "--streams", "2", "3"]
    settings = {"cwd": Path(__file__).parents[1], "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*command, *options], **settings)
    assert " programs compiled, 0 found, in " in done.stdout, done.stderr
    done = subprocess.run([sys.executable, "-c", USE, checkpoint_directory], **settings)
    read, compiled = done.stdout.split(maxsplit=1)
    assert compiled.strip() == "[]" and int(read) > 8, done.stdout + done.stderr
