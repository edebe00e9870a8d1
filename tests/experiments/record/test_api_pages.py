import warnings

import pytest

import nemojax
from experiments.record import api_pages


def test_modules_are_found_at_any_depth():
    modules = api_pages.public_modules("nemojax")
    assert {"nemojax", "nemojax.streaming", "nemojax.model.attention"} <= set(modules)
    assert "convert.__main__" not in api_pages.public_modules("convert")


def test_a_warning_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(api_pages, "build", lambda output: warnings.warn("no such name", stacklevel=1))
    assert api_pages.main(["--output", str(tmp_path)]) == 1
    assert "warning: no such name" in capsys.readouterr().err


@pytest.mark.slow
def test_every_public_name_is_on_the_front_page(tmp_path, capsys):
    pytest.importorskip("pdoc")
    assert api_pages.main(["--output", str(tmp_path)]) == 0, capsys.readouterr().err
    front = (tmp_path / "nemojax.html").read_text()
    assert not [name for name in nemojax.__all__ if f'id="{name}"' not in front]
    assert 'href="nemojax/model.html"' in front
    index = (tmp_path / "index.html").read_text()
    assert all(f'href="{name}.html"' in index for name in ("nemojax/streaming", "convert/nemo/archive"))
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert not [page for page in pages if "Alias for field number" in page or str(api_pages.ROOT) in page]
