"""The progress bar of audio."""

import io

from nemojax.progress import AudioBar


def test_the_bar_shows_whole_seconds_and_a_speed():
    out = io.StringIO()
    with AudioBar("speech", disable=False, file=out, ncols=80) as bar:
        for _ in range(3):
            bar.update(53.37833333333333)
        bar.start_t -= 10
        assert str(bar).startswith("speech: 160 s of audio [00:10, 16.0 times real time]")
    bar = AudioBar("speech", 200, disable=False, file=out)
    bar.update(160.13500000000002)
    assert str(bar).startswith("speech: 160 of 200 s of audio [00:00, ")
    bar.close()
