import pytest

from nemojax import cli, compilation
from nemojax.compilation import announced


def test_what_was_compiled_is_printed(run, monkeypatch, tmp_path):
    requests = []

    def warm(recognizer, lookahead, batch_size, streams, progress):
        requests.append((recognizer.dtype, lookahead, batch_size, streams))
        progress(1, 2)
        with announced("a program"):
            progress(2, 2)

    monkeypatch.setattr("nemojax.warm.warm", warm)
    monkeypatch.setattr("nemojax.compilation.directory", lambda: tmp_path)
    code, out, err = run("warm", "--lookahead", "0", "13", "--streams", "8", "64", "--dtype", "bfloat16")
    assert code == 0 and requests == [("bfloat16", (0, 13), 8, (8, 64))], err
    assert " programs compiled, " in out and out.endswith(f"; kept in {tmp_path}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "-1"], "--batch-size must be a whole number of at least 0, not -1"),
        (["--streams", "8", "0"], "each of --streams must be a whole number of at least 1, not 0"),
        (["--lookahead", "2"], "lookahead"),
    ],
)
def test_mistakes(run, options, message):
    code, _, err = run("warm", *options)
    assert code == 2 and message in err and err.startswith("error: ")


def test_where_nothing_is_kept_it_says_so(run, monkeypatch):
    monkeypatch.setattr("nemojax.compilation.directory", lambda: None)
    code, _, err = run("warm")
    assert code == 2 and f"unset ${compilation.SWITCH}" in err


def test_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["warm", "--help"])
    out = capsys.readouterr().out
    assert "--streams" in out and "--batch-size" in out
