"""The table that the commands print: its columns, its numbers, and texts that are meant to spoil it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from fraud_assets import cli
from fraud_assets_tests.builders import NOON

ROW = {
    "tenant": "acme",
    "events": 12345,
    "records": 1234,
    "fraud": 56,
    "decision": "Activated: PR-AUC 0.81 is at least 0.70.",
    "model_version": 3,
    "pr_auc": 0.8123,
    "activated_at": NOON.isoformat(),
}
UNKNOWN = dict.fromkeys(ROW) | {"tenant": "a", "decision": "No decision yet."}


def table(capsys: pytest.CaptureFixture[str], *rows: Mapping[str, Any]) -> list[str]:
    cli._print_table(rows, NOON + timedelta(hours=47))
    return capsys.readouterr().out.splitlines()


def test_the_columns_of_the_table_stand_under_their_heads(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(capsys, ROW, UNKNOWN) == [
        "tenant  events  records  fraud  model  PR-AUC     age  decision",
        "acme    12,345    1,234     56     v3   0.812  47.0 h  Activated: PR-AUC 0.81 is at least 0.70.",
        "a            -        -      -      -       -       -  No decision yet.",
    ]


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (None, "-"), (1000, "1,000")])
def test_zero_is_a_number_and_what_is_not_known_a_dash(
    capsys: pytest.CaptureFixture[str], value: int | None, shown: str
) -> None:
    assert table(capsys, ROW | {"fraud": value})[1].split()[3] == shown


def test_an_age_of_two_days_is_said_in_days(capsys: pytest.CaptureFixture[str]) -> None:
    since = (NOON - timedelta(hours=1)).isoformat()
    assert "  2.0 d  " in table(capsys, ROW | {"activated_at": since})[1]


@pytest.mark.parametrize("hostile", ["[red]a[/red]", "{0} %s", "<b>", 'a,b;"c"', "é漢字"])
def test_hostile_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], hostile: str) -> None:
    assert table(capsys, ROW | {"decision": hostile})[1].endswith(f"  {hostile}")


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "a\rb", "\x00", "\u202e", "\x9b31m"])
def test_control_characters_never_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    lines = table(capsys, ROW | {"decision": hostile})
    assert len(lines) == 2
    assert "".join(lines).isprintable()
