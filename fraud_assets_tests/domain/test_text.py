"""A stranger's text, wherever it is shown: one line, short, and nothing that is obeyed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.domain.errors import FraudAssetsError, SourceUnreachable
from fraud_assets.domain.text import LONGEST, cell, printable, shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("g1\n2026-06-01 02:00 ERROR forged", "g1\\n2026-06-01 02:00 ERROR forged"),
        ("\x1b[2J\x9b31m\x00\r", "\\x1b[2J\\x9b31m\\x00\\r"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("a\u2028b\x85c", "a\\u2028b\\x85c"),
        ("<script> [x](javascript:y) | é漢字 \U0001f600", "<script> [x](javascript:y) | é漢字 \U0001f600"),
        ("", ""),
        ("a" * LONGEST, "a" * LONGEST),
        ("a" * LONGEST + "b", "a" * (LONGEST - 3) + "..."),
        ("\n" * 200, "\\n" * 148 + "\\..."),
    ],
)
def test_what_would_be_obeyed_is_spelled_out_and_what_is_long_is_cut(text: str, line: str) -> None:
    assert shown(text) == line


@given(st.text(), st.integers(3, 50))
def test_any_text_is_one_printable_line(text: str, longest: int) -> None:
    assert shown(text, longest).isprintable()
    assert len(shown(text, longest)) <= longest
    assert printable(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=LONGEST))
def test_a_plain_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize("kind", [FraudAssetsError, SourceUnreachable])
def test_an_error_is_one_line_whatever_a_driver_said(kind: type[FraudAssetsError]) -> None:
    said = str(kind("expected an answer, got: no\n2026-06-01 02:00 INFO all is well\x1b[2J" + "x" * 5000))
    assert said.startswith("expected an answer, got: no\\n2026")
    assert said.isprintable()
    assert len(said) == 2000


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_is_a_text_to_it(mark: str) -> None:
    assert cell(f'{mark}HYPERLINK("http://a.example")') == f'\'{mark}HYPERLINK("http://a.example")'


@pytest.mark.parametrize("text", ["", "site 1 = 2", "a-b@c", "'=1", '"=1'])
def test_any_other_cell_stays_as_it_is(text: str) -> None:
    assert cell(text) == text
