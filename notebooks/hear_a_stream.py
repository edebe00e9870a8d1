# %% [markdown]
# # When is a word out?
#
# A streaming recogniser says a word some time after it was spoken. **How long after, and what is that time made of?**
# Here the small model that comes with the package hears 12 seconds of speech (four sentences of the GRID corpus),
# chunk by chunk, and every word is followed from the sound to the text.

# %%
import matplotlib.pyplot as plt
import numpy as np
import soundfile
from IPython.display import Audio

import nemojax
from experiments.accuracy.listening import stream
from experiments.latency.ours import log_mel_of
from nemojax.bundled import SMALL

plt.rcParams |= {"figure.dpi": 90, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
SHOWN_S = 6
recognizer = nemojax.load()
samples, rate_hz = soundfile.read(SMALL / "example.ogg", dtype="float32")
Audio(SMALL / "example.ogg")

# %% [markdown]
# ## Text as it appears
#
# `Stream.push` takes any number of samples and gives the text that is new. At look-ahead 1 a chunk is two encoder
# frames, 160 ms; most of them bring nothing. What has been said is never taken back.

# %%
lookahead = 1
live = recognizer.stream(lookahead)
for begin in range(0, len(samples), live.chunk_samples):
    update = live.push(samples[begin : begin + live.chunk_samples])
    if update.text:
        print(f"{min(begin + live.chunk_samples, len(samples)) / rate_hz:6.2f} s  {update.text!r}")
print("\n" + live.finish().text)

# %% [markdown]
# ## Where the words lie in the sound
#
# A label belongs to an encoder frame, 80 ms of sound, and a word begins with its first label and ends with its last.
# Over the spectrogram that the model sees: each word from its first to its last frame (white), and when its text was
# out (red).


# %%
def draw(axes, lookahead, words, out):
    log_mel = log_mel_of(samples, recognizer.config.features.mel_bins)
    seconds = len(log_mel) * recognizer.config.features.hop_samples / rate_hz
    axes.imshow(
        log_mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, log_mel.shape[1]), cmap="magma", vmin=-12
    )
    for number, (word, said) in enumerate(zip(words, out, strict=True)):
        if said.at_s > SHOWN_S:
            break
        height = 0.95 * log_mel.shape[1] - number % 3 * 9
        axes.plot([word.start_s, word.end_s], [height, height], color="white", linewidth=2)
        axes.text(word.start_s, height + 1, word.text, color="white", fontsize=8)
        axes.plot([said.at_s] * 2, [height - 2, height + 2], color="red", linewidth=2)
    axes.set(xlim=(0, SHOWN_S), ylabel="mel bin", title=f"look-ahead {lookahead}: chunks of {80 * (lookahead + 1)} ms")


heard = {r: (recognizer.transcribe(samples, r), stream(recognizer, samples, r).out) for r in (0, 1, 6, 13)}
figure, panels = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
for axes, r in zip(panels, (0, 13), strict=True):
    transcript, out = heard[r]
    draw(axes, r, transcript.words, out)
panels[-1].set_xlabel("time in s")
plt.show()

# %% [markdown]
# ## How long it takes
#
# From the beginning of a word's last frame to its text, counted in audio: what a machine of no time at all would need.
# The model's own slowness in making up its mind is not in it, as the frame is where it did.

# %%
print("look-ahead    chunk   wait of a word, mean and longest   text as at 1120 ms")
for r, (transcript, out) in heard.items():
    waits = np.array([1000 * (said.at_s - word.end_s) + 80 for word, said in zip(transcript.words, out, strict=True)])
    same = "yes" if transcript.text == heard[13][0].text else "no"
    print(f"{r:10d} {80 * (r + 1):5d} ms {waits.mean():14.0f} ms, {waits.max():5.0f} ms {same:>20s}")

# %% [markdown]
# ## The answer
#
# A word is out when the chunk is complete that holds its last frame. Without look-ahead that is 12.5 ms after the
# frame begins, half of the spectrogram's window: a frame looks back, not ahead. With chunks of 1120 ms it is half a
# chunk on average, and nearly a whole one for a word whose last frame is the first of a chunk. Nothing else is waited
# for, nothing is said twice, and nothing is taken back; on this recording the text is the same at every look-ahead.
