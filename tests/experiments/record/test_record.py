import json

import pytest

from experiments.record import record, tables
from nemojax.errors import ConfigError


def test_documents_are_up_to_date(capsys):
    assert record.main(["--check"]) == 0, capsys.readouterr().err


def test_every_table_is_quoted_somewhere():
    quoted = {match[2] for path in record.DOCUMENTS for match in record.BLOCK.finditer(path.read_text())}
    assert quoted == set(tables.TABLES)


def test_tables_replace_what_stood_there(monkeypatch):
    monkeypatch.setitem(tables.TABLES, "small-wer", lambda: "| new |")
    text = "a\n<!-- record: small-wer -->\n| old |\n<!-- end of record -->\nb\n"
    made = record.remade(text)
    assert made == "a\n<!-- record: small-wer -->\n\n| new |\n\n<!-- end of record -->\nb\n"
    assert record.remade(made) == made


def test_a_table_without_rows_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    made = record.remade("<!-- record: fine-tune -->\n<!-- end of record -->")
    assert made == "<!-- record: fine-tune -->\n\n*Not measured yet.*\n\n<!-- end of record -->"


def test_an_unknown_table_is_an_error():
    with pytest.raises(ConfigError, match="'speed' is none of"):
        record.remade("<!-- record: speed -->\n<!-- end of record -->")


def test_rows_name_no_machines_directories():
    found = [line for path in sorted(tables.RESULTS.glob("*.jsonl")) for line in path.read_text().splitlines()]
    texts = [value for line in found for value in json.loads(line).values() if isinstance(value, str)]
    assert texts and not [text for text in texts if text.startswith("/")]
