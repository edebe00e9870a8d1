"""Memory does not grow with a recording's length; each measurement is a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

MEASURE = """
import json, resource, sys
import nemojax
recognizer = nemojax.load(sys.argv[1])
if sys.argv[3] == "offline":
    transcript = recognizer.transcribe(sys.argv[2], 13)
else:
    stream, source = recognizer.stream(13), nemojax.audio.source.open_audio(sys.argv[2])
    while len(samples := source.read(16_000)):
        stream.push(samples)
    transcript = stream.finish()
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([peak_mb, transcript.duration_s, len(transcript.tokens)]))
"""


def measure(*arguments) -> tuple[float, float, int]:
    """Peak memory in MB, seconds of audio, labels."""
    command = [sys.executable, "-c", MEASURE, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "stream"])
def test_twenty_minutes_take_the_memory_of_one(checkpoint_directory, tmp_path, speech, mode):
    minute = np.tile(np.asarray(speech), 10)[: 60 * 16_000]
    for name, minutes in (("one", 1), ("twenty", 20)):
        with soundfile.SoundFile(tmp_path / f"{name}.flac", "w", 16_000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
    one_mb, one_s, one_labels = measure(checkpoint_directory, tmp_path / "one.flac", mode)
    twenty_mb, twenty_s, twenty_labels = measure(checkpoint_directory, tmp_path / "twenty.flac", mode)
    assert (one_s, twenty_s) == (60, 1200) and twenty_labels >= one_labels > 0
    assert twenty_mb < 1.1 * one_mb
    assert twenty_mb < one_mb + 30  # the samples alone would be 77 MB
