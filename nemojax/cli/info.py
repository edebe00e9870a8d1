"""`nemojax info`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from nemojax.bundled import SMALL
from nemojax.cli.options import MODEL_HELP, SMALL_HINT


def info(
    model: Positional[
        Annotated[Path, arg(metavar="[DIRECTORY]", help=MODEL_HELP, help_behavior_hint=SMALL_HINT)]
    ] = SMALL,
    /,
) -> int:
    """Print a model's size, settings and origin."""
    from nemojax.checkpoint import read_settings
    from nemojax.model.parameters import abstract_model, parameter_count

    config, _, origin = read_settings(model)
    encoder, lstm = config.encoder, config.prediction
    chunks = ", ".join(f"{r} ({config.chunk_ms(r):.0f} ms)" for r in encoder.lookaheads)
    rows = {
        "parameters": f"{parameter_count(abstract_model(config)):,}",
        "encoder": f"{encoder.layers} layers of width {encoder.width}, {encoder.heads} heads",
        "left context": f"{encoder.left_context_frames} frames of {config.frame_ms:.0f} ms",
        "look-aheads (chunk)": f"{chunks}; any R where R + 1 divides {encoder.left_context_frames}",
        "prediction network": f"LSTM, {lstm.layers} x {lstm.width}",
        "vocabulary": f"{config.vocabulary} pieces and blank",
        "audio": f"{config.features.sample_rate_hz} Hz, {config.features.mel_bins} mel bins",
        **{f"origin: {key}": str(value) for key, value in origin.items() if not isinstance(value, dict | list)},
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    return 0
