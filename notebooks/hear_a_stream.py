# %% [markdown]
# # When does a word appear?
#
# A streaming recognizer prints a word after it was spoken. **How long is the delay, and what causes it?** This
# notebook streams 12 seconds of speech (four sentences of the GRID corpus) through the small model of the package,
# chunk by chunk, and follows each word from the audio to the text.

# %%
import nemojax.companions

nemojax.companions.enable()  # `experiments`, from the clone or from the installed package

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
# `Stream.push` takes any number of samples and returns the new text. At look-ahead 1 a chunk is two encoder frames,
# 160 ms. The majority of chunks brings no new text. Greedy search never changes text that it has returned.

# %%
lookahead = 1
live = recognizer.stream(lookahead)
for begin in range(0, len(samples), live.chunk_samples):
    update = live.push(samples[begin : begin + live.chunk_samples])
    if update.text:
        print(f"{min(begin + live.chunk_samples, len(samples)) / rate_hz:6.2f} s  {update.text!r}")
print("\n" + live.finish().text)

# %% [markdown]
# ## The words and the spectrogram
#
# A label belongs to an encoder frame, which is 80 ms of audio. A word starts with the frame of its first label and
# ends with the frame of its last label. The plot shows the input of the model, a log-mel spectrogram, with each word
# from its first to its last frame (white) and the time at which its text appeared (red).


# %%
def draw(axes, lookahead, words, outputs):
    log_mel = log_mel_of(samples, recognizer.config.features.mel_bins)
    seconds = len(log_mel) * recognizer.config.features.hop_samples / rate_hz
    axes.imshow(
        log_mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, log_mel.shape[1]), cmap="magma", vmin=-12
    )
    for number, (word, output) in enumerate(zip(words, outputs, strict=True)):
        if output.at_s > SHOWN_S:
            break
        height = 0.95 * log_mel.shape[1] - number % 3 * 9
        axes.plot([word.start_s, word.end_s], [height, height], color="white", linewidth=2)
        axes.text(word.start_s, height + 1, word.text, color="white", fontsize=8)
        axes.plot([output.at_s] * 2, [height - 2, height + 2], color="red", linewidth=2)
    axes.set(xlim=(0, SHOWN_S), ylabel="mel bin", title=f"look-ahead {lookahead}: chunks of {80 * (lookahead + 1)} ms")


results = {r: (recognizer.transcribe(samples, r), stream(recognizer, samples, r).out) for r in (0, 1, 6, 13)}
figure, panels = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
for axes, r in zip(panels, (0, 13), strict=True):
    transcript, outputs = results[r]
    draw(axes, r, transcript.words, outputs)
panels[-1].set_xlabel("time in s")
plt.show()

# %% [markdown]
# ## The delay
#
# The delay is counted in audio, from the start of a word's last frame to its text. It excludes computing time. It
# also excludes the time that the model itself waits before it emits a label, because the frame is the one at which it
# does.

# %%
print("look-ahead    chunk   delay of a word, mean and longest   same text as at 1120 ms")
for r, (transcript, outputs) in results.items():
    pairs = zip(transcript.words, outputs, strict=True)
    delays_ms = np.array([1000 * (output.at_s - word.end_s) + 80 for word, output in pairs])
    same = "yes" if transcript.text == results[13][0].text else "no"
    print(f"{r:10d} {80 * (r + 1):5d} ms {delays_ms.mean():15.0f} ms, {delays_ms.max():5.0f} ms {same:>24s}")

# %% [markdown]
# ## The answer
#
# A word appears when the chunk with its last frame is complete. Without look-ahead, that is 12.5 ms after the start
# of the frame: half the window of the spectrogram, because a frame covers the audio before it. With chunks of 1120 ms
# the delay is half a chunk on average, and almost a whole chunk for a word whose last frame is the first of a chunk.
# Nothing else adds to the delay. No text is repeated or changed, and on this recording the text is the same at every
# look-ahead.
