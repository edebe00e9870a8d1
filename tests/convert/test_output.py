import stat
from collections import namedtuple

import pytest

from convert import output
from convert.errors import ConvertError


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_files_and_directories_are_readable_by_all(tmp_path):
    with output.new_file(tmp_path / "deep" / "file", 1) as partial:
        assert partial.parent == tmp_path / "deep" and not (tmp_path / "deep" / "file").exists()
        assert partial.name.startswith(".file.")
        partial.write_text("x")
    with output.new_directory(tmp_path / "deeper" / "directory", 1) as partial:
        (partial / "a").write_text("x")
        assert partial.name.startswith(".directory.")
        assert partial.parent == tmp_path / "deeper" and not (tmp_path / "deeper" / "directory").exists()
    assert mode(tmp_path / "deep" / "file") == 0o644 and mode(tmp_path / "deeper" / "directory") == 0o755
    assert names(tmp_path / "deep") == {"file"} and names(tmp_path / "deeper") == {"directory"}
    assert (tmp_path / "deep" / "file").read_text() == "x" and names(tmp_path / "deeper" / "directory") == {"a"}


@pytest.mark.parametrize("new", [output.new_file, output.new_directory])
@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1)])
def test_a_block_that_fails_leaves_nothing(tmp_path, new, error):
    with pytest.raises(type(error)), new(tmp_path / "out", 1):
        raise error
    assert names(tmp_path) == set()


@pytest.mark.parametrize("new", [output.new_file, output.new_directory])
def test_existing_output_and_full_disks(tmp_path, new, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with (
        pytest.raises(ConvertError, match=r"full exists already; give another name or remove it first$"),
        new(tmp_path / "full", 1),
    ):
        pass
    with pytest.raises(ConvertError, match="precious exists already"), new(tmp_path / "full" / "precious", 1):
        pass
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConvertError, match="link exists already"), new(tmp_path / "link", 1):
        pass
    (tmp_path / "link").unlink()
    room = namedtuple("room", "total used free")(10**9, 0, 10**6)
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: room)
    with new(tmp_path / "fits", 10**6) as partial:
        assert partial.exists()
    deep = tmp_path / "deep" / "out"
    message = f"^{deep} needs 3 MB, but only 1 MB are free in {tmp_path}$"
    with pytest.raises(ConvertError, match=message), new(deep, 3 * 10**6):
        pass
    with pytest.raises(ConvertError, match=r"out can't be written: No space left"), new(tmp_path / "out", 1):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == {"full", "fits"}
