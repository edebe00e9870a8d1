"""The progress bar of audio that is processed."""

from typing import Any

from tqdm import tqdm


class AudioBar(tqdm):  # type: ignore[type-arg]  # tqdm's type parameter is the items of a loop, and there is no loop
    """A bar that counts seconds of audio, and shows how many times faster than real time they are processed.

    It is shown on a terminal only, and disappears at the end. `update` takes seconds.
    """

    def __init__(self, description: str, total_s: float | None = None, **options: Any):
        form = "{desc}: {audio} [{elapsed}, {speed}]"
        chosen = {"disable": None, "leave": False, "bar_format": form, **options}
        super().__init__(desc=description, total=total_s, **chosen)

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values of the bar's text, with the audio and the speed."""
        values = dict(super().format_dict)
        whole = f" of {values['total']:.0f}" if values["total"] else ""
        speed = (values["n"] - values["initial"]) / values["elapsed"] if values["elapsed"] else 0.0
        return values | {"audio": f"{values['n']:.0f}{whole} s of audio", "speed": f"{speed:.1f} times real time"}
