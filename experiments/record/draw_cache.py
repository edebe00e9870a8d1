"""Draws the README's animation of a chunk that travels through the caches; `experiments.record.record` writes it."""

from collections.abc import Sequence

FRAMES, CHUNK, LEFT = 24, 4, 8  # fewer than in the released model, whose left context has 70 frames
KERNEL_LEFT = 2  # 8 in the released model
LAYERS = ("layer 24", "⋯", "layer 2", "layer 1")
STEPS = FRAMES // CHUNK
STEP_S = 2.4
SHOWN = 3.9  # steps: what is drawn where nothing moves, and what an animation begins with
CELL, GAP, X0, Y0 = 26, 4, 112, 150
TEXT = ("He turned", " round,", " and saw", " that the", " door was", " open.")
INK, FAINT, NEW, KEPT, OLD = "#24292f", "#8c959f", "#fb8500", "#219ebc", "#eaeef2"

STYLE = f"""
text {{ font: 13px system-ui, sans-serif; fill: {INK} }}
.small {{ font-size: 11px; fill: {FAINT} }}
rect.cell {{ rx: 4px }}
.caption {{ font-weight: 600 }}
@media (prefers-reduced-motion: reduce) {{ * {{ animation: none !important }} }}
"""


def percent(step: float) -> str:
    return f"{100 * step / STEPS:.2f}%"


def keyframes(name: str, stages: Sequence[tuple[float, str]], rest: str) -> str:
    """Makes an animation that holds each (start step, declaration) until the next, and `rest` before the first."""
    frames, value = [f"0%{{{rest}}}"], rest
    for start, new in stages:
        if start > 0:
            frames.append(f"{percent(start - 0.02)}{{{value}}}")
        frames.append(f"{percent(start)}{{{new}}}")
        value = new
    return f"@keyframes {name}{{{''.join(frames)}100%{{{value}}}}}"


def at_rest(stages: Sequence[tuple[float, str]], rest: str) -> str:
    """Returns the declaration that holds at `SHOWN`, as an attribute."""
    name, _, value = [rest, *(new for start, new in stages if start <= SHOWN)][-1].partition(":")
    return f'{name}="{value}"'


def animated(name: str, stages: Sequence[tuple[float, str]], rest: str) -> str:
    """Returns the attributes of a shape that is animated, and is drawn as at `SHOWN` where nothing moves."""
    style = f"animation:{name} {STEPS * STEP_S:g}s linear {-SHOWN * STEP_S:g}s infinite"
    return f'{at_rest(stages, rest)} style="{style}"'


def cell_stages(frame: int, delay: float) -> list[tuple[float, str]]:
    """Returns the stages of a frame: computed with its chunk, cached for the next chunks, dropped."""
    computed = frame // CHUNK + delay
    dropped = frame // CHUNK + 1 + LEFT // CHUNK
    stages = [(computed, f"fill:{NEW}"), (frame // CHUNK + 1, f"fill:{KEPT}")]
    return [*stages, (dropped, f"fill:{OLD}")] if dropped < STEPS else stages


def x(frame: int) -> int:
    """Returns the left edge of a frame."""
    return X0 + frame * (CELL + GAP)


def draw() -> str:
    """Returns the animation as SVG."""
    styles: list[str] = [STYLE]
    shapes: list[str] = []
    width, bottom = x(FRAMES) + 20, Y0 + len(LAYERS) * (CELL + GAP)

    def text(left: int, top: int, words: str, attributes: str = "") -> None:
        shapes.append(f'<text x="{left}" y="{top}" {attributes}>{words}</text>')

    # audio, in chunks
    text(16, 62, "audio")
    for frame in range(FRAMES):
        for k in range(6):
            height = 3 + abs((frame * 7 + k * 5) % 19 - 9) * (1.6 if (frame // 2) % 5 else 0.4)
            px = x(frame) + k * (CELL + GAP) / 6
            shapes.append(
                f'<rect x="{px:.1f}" y="{58 - height:.1f}" width="2.5" height="{2 * height:.1f}" fill="{FAINT}"/>'
            )
    for step in range(STEPS):
        stages = [(float(step), "opacity:1"), (step + 1, "opacity:0")][: 2 if step + 1 < STEPS else 1]
        styles.append(keyframes(f"s{step}", stages, "opacity:0"))
        shown = animated(f"s{step}", stages, "opacity:0")
        span = CHUNK * (CELL + GAP)
        shapes.append(
            f'<rect x="{x(step * CHUNK) - 3}" y="30" width="{span}" height="56" rx="6" fill="none" stroke="{NEW}" '
            f'stroke-width="2" {shown}/>'
        )
        cached = min(step * CHUNK, LEFT)
        text(
            X0,
            112,
            f"step {step + 1}: {CHUNK} new frames computed, {cached} cached, none computed twice",
            f'class="caption" {shown}',
        )
    # encoder layers: one row of cells each
    for row, name in enumerate(LAYERS):
        y, depth = Y0 + row * (CELL + GAP), len(LAYERS) - 1 - row
        text(16, y + 18, name)
        for frame in range(FRAMES):
            key = f"c{row}_{frame}"
            stages, rest = cell_stages(frame, 0.12 + 0.12 * depth), f"fill:{OLD}"
            styles.append(keyframes(key, stages, rest))
            size = f'width="{CELL}" height="{CELL}"'
            shapes.append(f'<rect class="cell" x="{x(frame)}" y="{y}" {size} {animated(key, stages, rest)}/>')
            if frame % CHUNK >= CHUNK - KERNEL_LEFT:  # the last frames are in the convolution's cache too
                step = frame // CHUNK
                key = f"v{frame}"
                stages = [s for s in [(step + 1, "opacity:1"), (step + 2, "opacity:0")] if s[0] < STEPS]
                if row == 0:
                    styles.append(keyframes(key, stages, "opacity:0"))
                shown = animated(key, stages, "opacity:0")
                shapes.append(f'<circle cx="{x(frame) + CELL / 2}" cy="{y + CELL / 2}" r="4" fill="white" {shown}/>')
    # text, when its chunk is done
    text(16, bottom + 36, "text")
    for step, words in enumerate(TEXT):
        key = f"t{step}"
        stages = [(step + 0.6, "opacity:1")]
        styles.append(keyframes(key, stages, "opacity:0"))
        text(x(step * CHUNK), bottom + 36, words.strip(), animated(key, stages, "opacity:0"))
    # legend
    y = bottom + 74
    for left, color, words in (
        (X0, NEW, "computed in this step"),
        (X0 + 180, KEPT, "keys and values in the attention cache"),
        (X0 + 440, OLD, "not yet received, or dropped"),
    ):
        shapes.append(f'<rect x="{left}" y="{y - 12}" width="14" height="14" rx="3" fill="{color}"/>')
        text(left + 20, y, words, 'class="small"')
    shapes.append(f'<rect x="{X0}" y="{y + 10}" width="14" height="14" rx="3" fill="{KEPT}"/>')
    shapes.append(f'<circle cx="{X0 + 7}" cy="{y + 17}" r="3" fill="white"/>')
    text(X0 + 20, y + 22, "also in the convolution cache", 'class="small"')
    height = y + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>A chunk of audio travels through the caches of a streaming encoder</title>"
        f'<rect width="100%" height="100%" rx="8" fill="white"/>'
        f"<style>{''.join(styles)}</style>{''.join(shapes)}</svg>\n"
    )
