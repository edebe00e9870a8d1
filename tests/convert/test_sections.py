import shlex

import pytest

from convert import sections
from convert.errors import ConvertError
from convert.sections import MAX_SETTINGS_BYTES, MAX_YAML_NODES, Everything, Section, read_json, read_yaml
from tests.helpers.messages import whole


@pytest.mark.parametrize(
    "value,kind,expected",
    [
        (3, int, 3),
        (1 << 17, int, 1 << 17),
        (-1e5, float, -1e5),
        (3.0, int, 3),
        (True, bool, True),
        (3, float, 3.0),
        ("1e-5", float, 1e-5),
        ("a", str, "a"),
        ([1], list, [1]),
    ],
)
def test_values_of_a_type(value, kind, expected):
    section = Section({"a": value})
    assert section.take("a", kind) == expected and type(section.take("a", kind)) is type(expected)
    assert section.problems == []


@pytest.mark.parametrize(
    "value,kind",
    [(True, int), (False, float), (1, bool), (1.5, int), ("1", int), ("x", float), (None, int), ({}, list)],
)
def test_values_of_another_type(value, kind):
    section = Section({"a": value}, "part.")
    assert section.take("a", kind) == kind()
    assert section.problems == [f"part.a must be {kind.__name__}, not {value!r}"]


def test_missing_values():
    section = Section({})
    assert section.take("a", int, 3) == 3 and section.problems == []
    assert section.take("a", int) == 0 and section.problems == ["a is missing"]
    assert section.section("b", optional=True).values == {} and len(section.problems) == 1
    section.section("c")
    assert section.problems[1:] == ["c is missing"]
    null = Section({"a": None}, "part.")
    assert null.section("a", optional=True).where == "part.a." and null.problems == []
    null.section("a")
    Section([], "", null)
    assert null.problems == ["part.a must be a mapping, not None", "the file must be a mapping, not []"]


@pytest.mark.parametrize("value", [(1 << 17) + 1, -(1 << 17) - 1, 1e300, float("inf"), float("nan")])
def test_numbers_out_of_range(value):
    section = Section({"a": value})
    assert section.take("a", type(value)) == 0
    assert len(section.problems) == 1 and section.problems[0].endswith("is out of range")


def test_supported_values_have_a_type():
    section = Section({"one": 1, "true": True, "half": 0.5, "none": None})
    for key, value in section.values.items():
        section.only(key, [value], None)
    section.only("absent", [3], 3)
    assert section.problems == []
    section.only("true", [1], None)
    section.only("one", [True, 2], None)
    section.only("absent", [3], 4)
    assert section.problems == [
        "true: true is not supported, only 1",
        "one: 1 is not supported, only true or 2",
        "absent: 4 (the default) is not supported, only 3",
    ]


def test_every_key_must_be_known():
    section = Section({"part": {"a": 1, "b": 2, "c": 3, "d": 4}})
    part = section.section("part")
    part.take("a", int)
    part.skip(["b"])
    part.close(("part.c", "d"))  # a name without its section skips nothing
    section.close()
    section.require("part", False, "reason")
    section.require("part", True, "none")
    assert section.problems == [
        "part.d is an unknown setting (--skip-setting part.d ignores it)",
        f"part: {section.values['part']} is not supported: reason",
    ]
    with pytest.raises(ConvertError, match=r"^file: part\.d is an unknown .*; part: .* reason$"):
        section.check("file")
    harmless = Section({"a": 1})
    harmless.close(Everything())
    harmless.check("file")


@pytest.mark.parametrize("read,language", [(read_json, "JSON"), (read_yaml, "YAML")])
def test_files_are_parsed_within_limits(read, language, monkeypatch):
    assert read(b'{"a": [1, "b"]}', "name") == {"a": [1, "b"]}
    with pytest.raises(ConvertError, match=f"name is not {language}"):
        read(b'{"a": [', "name")
    with pytest.raises(ConvertError, match=f"name is not {language}"):
        read(b"\xff\xff", "name")
    with pytest.raises(ConvertError, match=whole("name is larger than 8 MB")):
        read(b" " * (MAX_SETTINGS_BYTES + 1), "name")
    monkeypatch.setattr(sections, "MAX_SETTINGS_BYTES", 2)  # the limit of YAML; JSON's is the default of an argument
    assert read(b"[]", "name") == []


def test_aliases_are_read_as_what_they_stand_for():
    assert read_yaml(b"a: &x {b: [1, 2]}\nc: *x\nd: {<<: *x, e: 3}", "name") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 3},
    }


@pytest.mark.parametrize(
    "text,message",
    [
        (
            b"a0: &a0 [1]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 60)),
            "more than",
        ),
        (b"a: [" + b"1," * MAX_YAML_NODES + b"]", "more than 250,000 values"),
        (b"a: &a [*a]", "the alias 'a' stands for nothing, or for itself"),
        (b"a: 1" + b":59" * 100_000, "a number of more than 1000 characters"),
        (b"a: !!int '1" + b":59" * 100_000 + b"'", "a number of more than 1000 characters"),
        (b"a: 0x" + b"f" * 100_000, "a number of more than 1000 characters"),
        (b"a: !!timestamp soon", "is not YAML|has no attribute"),
        (b"a: !!int ''", "is not YAML|out of range"),
        (b"[" * 100_000, "nest"),
        (b"- " * 100_000, "nest"),
        (b'a: "\\ud800"', "invalid Unicode|surrogates not allowed"),
    ],
    ids=range(11),
)
def test_yaml_is_bounded(text, message):
    with pytest.raises(ConvertError, match=f"name is (not YAML: .*|nested too deeply|.*){message}"):
        read_yaml(text, "name")


@pytest.mark.parametrize(
    "text,count",
    [
        ("a", 1),
        ("[]", 1),
        ("[1, [2], {a: b}]", 7),
        ("a: &x {b: [1, 2]}\nc: *x", 13),  # 5 under the anchor, twice; two names, and the whole
        ("a: &x 1\nb: [*x, *x, *x]", 8),
        ("- [[1, 2], 3]\n- &x [1, 2, 3]\n- *x", 14),
        ("? &x a\n: *x", 3),
    ],
)
def test_values_are_counted_with_aliases_as_what_they_stand_for(text, count, monkeypatch):
    monkeypatch.setattr(sections, "MAX_YAML_NODES", count)
    read_yaml(text.encode(), "name")
    monkeypatch.setattr(sections, "MAX_YAML_NODES", count - 1)
    with pytest.raises(ConvertError, match=f"^name is not YAML: it has more than {count - 1} values$"):
        read_yaml(text.encode(), "name")


def test_a_long_text_is_no_number():
    for text in ("'" + "9" * 2000 + "'", "x" + "9" * 2000, "9" * 1000, "-" + "9" * 999):
        assert str(read_yaml(f"a: {text}".encode(), "name")["a"]) == text.strip("'")
    for first in "+-.0123456789":
        with pytest.raises(ConvertError, match=r"^name is not YAML: it has a number of more than 1000 characters$"):
            read_yaml(f"a: {first}{'9' * 1000}".encode(), "name")


def test_half_of_a_surrogate_pair_is_no_text():
    with pytest.raises(ConvertError, match=r"name is not JSON: .*surrogates not allowed"):
        read_json(b'{"a": "\\ud800"}', "name")
    assert read_json(b'"\\ud83d\\ude00"', "name") == "\U0001f600"


def test_names_that_messages_recommend_to_skip_are_skipped():
    values = {"plain": 1, "two words": 2, "line\nbreak": 3, "x" * 500: 4, None: 5, True: 6, 7: 8, "'quoted'": 9}
    section = Section(values, "part.")
    section.close()
    recommended = [shlex.split(problem.partition("--skip-setting ")[2])[0] for problem in section.problems]
    assert len(recommended) == len(values)
    again = Section(values, "part.")
    again.close(recommended)
    again.ignore_rest(recommended)
    assert again.problems == [] and again.all_notes() == []


def test_ignored_settings_are_one_note():
    top = Section({"a": 1, "part": {f"b{i}": i for i in range(20)}})
    top.section("part").ignore_rest(("part.b0",))
    top.ignore_rest()
    assert top.problems == []
    names = ", ".join(f"part.b{i}" for i in range(1, 9))
    assert top.all_notes() == [f"settings that nemojax does not use: {names}, and 12 more"]


def test_a_key_that_a_mapping_has_twice():
    with pytest.raises(ConvertError, match=r"model_config\.yaml is not YAML: it has the key 'b' twice"):
        read_yaml(b"a: {b: 1, c: 2, b: 1}", "model_config.yaml")
    assert read_yaml(b"a: &a {b: 1}\nc: {<<: *a, b: 2}\nd: {<<: [*a, *a]}", "x")["c"] == {"b": 2}  # it is merged
