# %% [markdown]
# # Can it learn a voice in minutes?
#
# The small model knows few voices. **What do three minutes of a new one teach it, in two minutes on two CPU cores?**
# The voices are synthetic ones that training has left out (Debian's espeak-ng and flite); without these programs, it
# is the one recording that comes with the package, slower and faster, which shows how it is done and nothing else.

# %%
import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile

from experiments import evaluate
from experiments.loop import Run
from experiments.run_directory import read_metrics
from experiments.settings import PRESETS
from experiments.synthesis.__main__ import main as synthesise
from nemojax.manifest import expand_manifest
from nemojax.recognizer import SMALL, load

plt.rcParams |= {"figure.dpi": 90, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Something to learn, and something to be asked
#
# Every fourth recording is kept for asking; no text occurs in both.

# %%
if shutil.which("espeak-ng") and shutil.which("flite"):
    programs = ["--programs", "espeak-ng", "flite"]
    assert synthesise([str(work), "--hours", "0", "--dev", "0", "--new-voice", "60", *programs]) == 0
    entries = [json.loads(line) for line in (work / "synthetic_new_voice.jsonl").read_text().splitlines()]
    for name in ("taught", "kept"):
        shutil.copy(work / "synthetic_new_voice.tar", work / f"{name}.tar")
else:
    print("neither espeak-ng nor flite is here: one recording, slower and faster, in place of new voices")
    samples, text = soundfile.read(SMALL / "example.ogg")[0], (SMALL / "example.txt").read_text().strip()
    entries = []
    for number, speed in enumerate(np.linspace(0.9, 1.1, 12)):
        changed = np.interp(np.arange(0, len(samples) - 1, speed), np.arange(len(samples)), samples)
        soundfile.write(work / f"{number}.wav", changed, 16_000)
        entries.append({"audio_filepath": f"{number}.wav", "duration": len(changed) / 16_000, "text": text})
taught, kept = work / "taught.jsonl", work / "kept.jsonl"
for path, chosen in ((taught, [e for i, e in enumerate(entries) if i % 4]), (kept, entries[::4])):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in chosen))
    print(f"{path.stem}: {len(chosen)} recordings, {sum(e['duration'] for e in chosen) / 60:.1f} minutes")
print(*(entry["text"] for entry in entries[:8:4]), sep="\n")

# %% [markdown]
# ## Training
#
# The recipe is a frozen dataclass; what differs from the small model's own is the start, the rate and the length. The
# dev set is heard at every look-ahead, by the streaming step, every 20 steps.

# %%
_, small = PRESETS["small"]
experiment = dataclasses.replace(
    small,
    run=work / "run",
    train=(str(taught),),
    dev=(kept,),
    init=SMALL,
    steps=60,
    evaluate_every=20,
    save_every=60,
    workers=0,
    training=dataclasses.replace(
        small.training,
        learning_rate=0.024,
        warmup_steps=20,
        ctc_weight=0.3,
        average_decay=0.9,
        cooldown_from=30,
        cooldown_steps=30,
    ),
    plan=dataclasses.replace(small.plan, bucket_count=1),
)
Run(experiment, print).train()

# %% [markdown]
# ## Before and after

# %%
scores = {}
for name, model in (("before", SMALL), ("after", work / "run/model")):
    rows = work / f"{name}.jsonl"
    with contextlib.redirect_stdout(io.StringIO()):
        assert evaluate.main([str(model), str(kept), "--stream", "--lookaheads", "13", "--output", str(rows)]) == 0
    scores[name] = json.loads(rows.read_text())["wer"]

# %%
metrics = list(read_metrics(work / "run/metrics.jsonl"))
steps = [row for row in metrics if row["kind"] == "train"]
dev = [row for row in metrics if row["kind"] == "dev" and row["lookahead"] == 13]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
per_label = [row["loss"] / (row["labels"] / row["utterances"]) for row in steps]
left.plot([row["step"] for row in steps], per_label, color="C0", linewidth=0.8)
left.set(xlabel="step", ylabel="loss per label", ylim=(0, None), title="on what is taught")
curve = [(0, scores["before"]["rate"])] + [(row["step"], row["wer"]) for row in dev]
right.plot(*zip(*[(step, 100 * rate) for step, rate in curve], strict=True), marker="o", color="C1")
right.set(xlabel="step", ylabel="WER in %", ylim=(0, None), title="on what is kept, chunks of 1120 ms")
plt.show()

# %%
before, after = load(), load(work / "run/model")
for entry in expand_manifest(kept)[:3]:
    print(f"before  {before.transcribe(entry).text}\nafter   {after.transcribe(entry).text}\n")
for name, wer in scores.items():
    print(f"{name:7s} {100 * wer['rate']:5.1f} % WER [{100 * wer['low']:.1f}, {100 * wer['high']:.1f}]")

# %% [markdown]
# ## The answer
#
# TODO
