"""The scenarios are data that a client of any language is checked against."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from telex.cli.commands import telex
from telex.conformance.scenarios import load, matches


def test_each_scenario_says_what_it_shows_and_begins_with_a_client() -> None:
    scenarios = load()
    assert len(scenarios) > 50
    for each in scenarios:
        assert each.shows.endswith("."), each.name
        assert each.steps[0].do[0]["do"] == "connect", each.name  # type: ignore[union-attr]


def test_names_are_unique(tmp_path: Path) -> None:
    one = '[{"name": "a", "shows": "x", "steps": []}]'
    (tmp_path / "one.json").write_text(one)
    (tmp_path / "two.json").write_text(one)
    with pytest.raises(ValueError, match=r"two scenarios have one name: \['a'\]"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "value", "does"),
    [
        ("*", None, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": None}, {}, False),
        ({"a": 1}, {"a": True}, False),
        ([1, "*"], [1, {}], True),
        ([1], [1, 2], False),
        ({"a": {"b": [{"c": "*"}]}}, {"a": {"b": [{"c": 0}]}}, True),
        ({}, "text", False),
    ],
)
def test_patterns(pattern: object, value: object, does: bool) -> None:
    assert matches(pattern, value) is does


def test_the_command_lists_scenarios_and_wants_an_adapter() -> None:
    listed = CliRunner().invoke(telex, ["conformance", "--list", "--only", "channels/*"])
    assert "channels/resume: A channel goes on after its last event." in listed.output
    assert "calls/" not in listed.output
    without = CliRunner().invoke(telex, ["conformance"])
    assert without.exit_code == 2
    assert "name the command that starts the client's adapter" in without.output
