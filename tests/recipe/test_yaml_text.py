"""YAML that says two things, or stands for more than a recipe is."""

from __future__ import annotations

import gzip

import pytest

from raypipe.config import ConfigError
from raypipe.recipe import yaml_text
from raypipe.recipe.yaml_text import parse_yaml, read_yaml


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse_yaml(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' is given twice, in lines 1 and 3; keep one of them"),
        ("x:\n- y:\n    z: 1\n    'z': 1", "the key 'z' is given twice, in lines 3 and 4"),
        ("{a: 1, b: [{c: 1, c: 2}]}", "the key 'c' is given twice, in line 1, columns 13 and 19"),
        ("1: a\ntrue: b", "the key True is given twice, in lines 1 and 2"),  # one key to Python
        ("<<: {a: 1}\n<<: {b: 1}", "the key '<<' is given twice, in lines 1 and 2"),
    ],
)
def test_a_key_given_twice_is_named_with_both_places(text, message):
    assert message in refused(text)


def test_what_an_alias_brings_gives_way_and_is_no_second_key():
    text = "base: &b {<<: {k: 0, n: 1}, k: 2}\none: {<<: *b, k: 3}\ntwo: {k: 4, <<: *b}"
    tree = parse_yaml(text)
    assert tree["base"] == {"n": 1, "k": 2}
    assert tree["one"] == {"n": 1, "k": 3} and tree["two"] == {"n": 1, "k": 4}


def laughs(levels: int) -> str:
    """Ten aliases of the line before on every line."""
    lines = ["n0: &n0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"n{i}: &n{i} [{', '.join([f'*n{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


def chain(levels: int) -> str:
    return "\n".join(["n0: &n0 [x]", *(f"n{i}: &n{i} [*n{i - 1}]" for i in range(1, levels))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(12), "expected at most 100,000 values with aliases filled in, found 111,111"),
        (chain(60), "expected at most 50 levels of mappings and lists, found more, line"),
        ("[" * 100_000, "expected at most 50 levels of mappings and lists"),
        ("a: &a {b: [*a]}", "expected at most 50 levels of mappings and lists"),
        (f"seed: {'9' * 10_000}", "a value is not valid YAML (Exceeds the limit"),
        ("name: 2024-13-45", "a value is not valid YAML (month must be in 1..12); put it in"),
    ],
    ids=["laughs", "chain", "brackets", "itself", "digits", "date"],
)
def test_what_is_no_recipe_is_refused_before_it_is_built(text, message):
    assert message in refused(text)


def test_digits_of_other_scripts_are_text():
    assert parse_yaml("[1e٣, ٣, 1e3]") == ["1e٣", "٣", 1000.0]
    assert parse_yaml("") is None and parse_yaml(chain(48))


def test_files_are_utf_8_and_of_a_recipes_size(tmp_path, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: x\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"x\.yaml, line 2: expected UTF-8, found the byte 0xe9"):
        read_yaml(path)
    path.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(path) == {"name": "x"}
    monkeypatch.setattr(yaml_text, "LARGEST_FILE", 100)
    path.write_text("#" * 101)
    with pytest.raises(ConfigError, match=r"x\.yaml: expected a recipe of at most 100 bytes"):
        read_yaml(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_packed_recipes_marks_and_ends_of_lines_change_nothing(tmp_path, ends, mark, pack):
    path = tmp_path / "x.yaml"
    path.write_bytes(pack((mark + "a: 1\nb:\n- x\n".replace("\n", ends)).encode()))
    assert read_yaml(path) == {"a": 1, "b": ["x"]}


def test_a_packed_recipe_of_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_text, "LARGEST_FILE", 100)
    path = tmp_path / "x.yaml"
    path.write_bytes(gzip.compress(b"#" * 10_000_000))
    with pytest.raises(ConfigError, match=r"x\.yaml: expected a recipe of at most 100 bytes"):
        read_yaml(path)
    path.write_bytes(gzip.compress(b"a: 1")[:-9])
    with pytest.raises(ConfigError, match=r"x\.yaml: expected a complete gzip file"):
        read_yaml(path)
