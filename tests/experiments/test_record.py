import json

import pytest

from experiments import record
from nemojax.config import ConfigError


def test_documents_quote_what_the_rows_say(capsys):
    assert record.main(["--check"]) == 0, capsys.readouterr().err


def test_every_table_is_quoted_somewhere():
    quoted = {match[2] for path in record.DOCUMENTS for match in record.BLOCK.finditer(path.read_text())}
    assert quoted == set(record.TABLES)


def test_a_changed_row_changes_the_table(monkeypatch):
    before = record.small_wer()
    changed = record.rows("small")
    changed[0]["wer"]["rate"] = 0.4321
    monkeypatch.setattr(record, "rows", lambda name: changed)
    after = record.small_wer()
    assert "43.2 [" in after and after != before


def test_a_difference_beyond_chance_is_marked(monkeypatch):
    found = record.rows("small")
    for row in found:
        row["p_value"] = 0.01 if row["lookahead"] == 0 else 0.5
    monkeypatch.setattr(record, "rows", lambda name: found)
    lines = record.small_wer().splitlines()[2:]
    assert all(line.endswith(" † |") and line.count("†") == 1 for line in lines)


def test_tables_replace_what_stood_there(monkeypatch):
    monkeypatch.setitem(record.TABLES, "small-wer", lambda: "| new |")
    text = "a\n<!-- record: small-wer -->\n| old |\n<!-- end of record -->\nb\n"
    made = record.remade(text)
    assert made == "a\n<!-- record: small-wer -->\n\n| new |\n\n<!-- end of record -->\nb\n"
    assert record.remade(made) == made


def test_what_has_no_rows_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    made = record.remade("<!-- record: fine-tune -->\n<!-- end of record -->")
    assert made == "<!-- record: fine-tune -->\n\n*Not measured yet.*\n\n<!-- end of record -->"


def test_an_unknown_table_is_an_error():
    with pytest.raises(ConfigError, match="'speed' is none of"):
        record.remade("<!-- record: speed -->\n<!-- end of record -->")


def test_rows_name_no_machines_directories():
    found = [line for path in sorted(record.RESULTS.glob("*.jsonl")) for line in path.read_text().splitlines()]
    texts = [value for line in found for value in json.loads(line).values() if isinstance(value, str)]
    assert texts and not [text for text in texts if text.startswith("/")]
