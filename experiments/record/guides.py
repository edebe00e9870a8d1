"""The guides in `nemojax/guides`, a page for each task, as pages beside those of the modules."""

import os
import re
from pathlib import Path

GUIDES = Path(__file__).parents[2] / "nemojax" / "guides"
ORDER = ("transcribe", "stream", "serve", "fine_tune", "compare", "add_a_layer", "run_elsewhere")
LINK = re.compile(r'href="(?!\w+:)([^"#]+)')


def titles() -> dict[str, str]:
    """Returns the titles of the guides by the names of their files, in reading order."""
    return {name: (GUIDES / f"{name}.md").read_text().partition("\n")[0].removeprefix("# ") for name in ORDER}


def build(output: Path) -> None:
    """Writes a page for each guide. pdoc's templates must be configured."""
    from markupsafe import Markup
    from pdoc import render, render_helpers

    guides = titles()
    directory = output / GUIDES.name
    directory.mkdir(parents=True, exist_ok=True)
    for name, title in guides.items():
        body = Markup(linked(render_helpers.to_html((GUIDES / f"{name}.md").read_text())))
        page = render.env.get_template("guide.html.jinja2").render(title=title, body=body, guides=guides)
        (directory / f"{name}.html").write_text(page)


def linked(body: str) -> str:
    """Returns a page whose links lead to other pages: those of guides, and of modules."""

    def page(match: re.Match[str]) -> str:
        target = match[1]
        if target.endswith(".md"):
            return f'href="{target.removesuffix(".md")}.html'
        module = os.path.normpath(GUIDES.relative_to(GUIDES.parents[1]) / target).removesuffix(".py")
        return f'href="../{module}.html'

    return LINK.sub(page, body)
