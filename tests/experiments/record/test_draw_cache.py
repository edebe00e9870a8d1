"""The animation of the caches, where nothing moves: it shows a step in the middle."""

import re
import xml.etree.ElementTree as ElementTree

from experiments.record.draw_cache import CHUNK, FRAMES, KEPT, LAYERS, LEFT, NEW, OLD, SHOWN, at_rest, draw


def test_a_drawing_that_does_not_move_shows_new_and_cached_frames():
    root = ElementTree.fromstring(draw())
    cells = [element.get("fill") for element in root.iter() if element.get("class") == "cell"]
    assert len(cells) == FRAMES * len(LAYERS)
    rows = [cells[row * FRAMES : (row + 1) * FRAMES] for row in range(len(LAYERS))]
    new = int(SHOWN) * CHUNK
    expected = [OLD] * (new - LEFT) + [KEPT] * LEFT + [NEW] * CHUNK + [OLD] * (FRAMES - new - CHUNK)
    assert rows == [expected] * len(LAYERS)
    texts = {element.text: element.get("opacity") for element in root.iter() if (element.tag or "").endswith("text")}
    assert [words for words, opacity in texts.items() if opacity == "0"] == [
        *(f"step {k}: 4 new frames computed, {c} cached, none computed twice" for k, c in ((1, 0), (2, 4), (3, 8))),
        *(f"step {k}: 4 new frames computed, 8 cached, none computed twice" for k in (5, 6)),
        *("door was", "open."),
    ]
    assert "prefers-reduced-motion" in draw() and re.search(r"animation:\w+ 14.4s linear -9.36s infinite", draw())


def test_the_declaration_at_rest_is_the_last_one_that_has_begun():
    stages = [(1.0, "fill:red"), (SHOWN, "fill:blue"), (SHOWN + 0.1, "fill:green")]
    assert at_rest(stages, "fill:white") == 'fill="blue"'
    assert at_rest(stages[2:], "fill:white") == 'fill="white"'
