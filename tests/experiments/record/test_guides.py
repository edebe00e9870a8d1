"""The guides, and their pages."""

import re

import pytest

from experiments.record import guides
from experiments.record.guides import GUIDES, ORDER, linked


def test_every_guide_is_a_page():
    assert {path.stem for path in GUIDES.glob("*.md")} == set(ORDER)
    assert next(iter(guides.titles().values())) == "Transcribe recordings"


def test_links_lead_to_pages():
    body = '<a href="stream.md">x</a> <a href="../model/layers.py">y</a> <a href="https://a.b/c.py">z</a>'
    expected = (
        '<a href="stream.html">x</a> <a href="../nemojax/model/layers.html">y</a> <a href="https://a.b/c.py">z</a>'
    )
    assert linked(body) == expected


@pytest.mark.parametrize("name", ORDER)
def test_guides_link_to_guides_and_modules_alone(name):
    targets = re.findall(r"\]\(([^)]+)\)", (GUIDES / f"{name}.md").read_text())
    assert not [target for target in targets if not target.endswith((".md", ".py"))]


def test_pages_are_built(tmp_path):
    render = pytest.importorskip("pdoc").render
    from experiments.record.api_pages import TEMPLATE

    render.configure(template_directory=TEMPLATE)
    guides.build(tmp_path)
    page = (tmp_path / "guides" / "serve.html").read_text()
    assert (
        "<title>Serve many live streams</title>" in page
        and "<table>" in (tmp_path / "guides" / "compare.html").read_text()
    )
    assert page.count('href="../nemojax/serving/engine.html"') == 1 and 'href="fine_tune.html">Fine-tune' in page
