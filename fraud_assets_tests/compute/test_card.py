"""The model card: all that a reader asks, and nobody's text that does anything."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fraud_assets.compute import card
from fraud_assets.compute.card import Facts
from fraud_assets_tests.builders import NOON

FACTS = Facts(
    tenant="acme",
    version=3,
    decision="Activated: PR-AUC 0.81 is at least 0.70.",
    metrics={
        "pr_auc": 0.8123,
        "pr_auc_low": 0.7,
        "pr_auc_high": 0.9,
        "holdout_records": 1200,
        "holdout_fraud": 31,
    },
    records=6000,
    fraud=150,
    window_start=NOON - timedelta(days=180),
    as_of=NOON,
    dataset_version=12,
    dataset_digest="d" * 64,
)
HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![](https://evil.example/x.png)",
    "https://evil.example and www.evil.example and me@evil.example",
    "# heading\n\n- list\n1. one\n> quote\n---\n***",
    "`code` ``more`` ~~gone~~ **bold** __bold__ *i* _i_",
    "&lt;b&gt; &#60;b&#62; \\<b> | a | b |",
    "\x00\x1b[31m\u202e",
    "    indented",
    "===",
    "1. one",
    "+ plus",
    "~~~",
]
RENDERER = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])


def text_of(markdown: str) -> list[str]:
    """The tokens that carry text, of one paragraph; anything else fails."""
    opening, inline, closing = RENDERER.parse(markdown)
    assert (opening.type, closing.type) == ("paragraph_open", "paragraph_close")
    assert {each.type for each in inline.children or []} <= {"text", "text_special"}, markdown
    return [each.content for each in inline.children or []]


def plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_reads_as_it_was_written_and_is_nothing_else(hostile: str) -> None:
    if plain(hostile):
        assert "".join(text_of(card.escaped(hostile))) == plain(hostile)


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("*_`[]()<>#-+.!|~&\\:/@w1\n ="))
def test_any_text_reads_as_it_was_written(text: str) -> None:
    shown = card.escaped(text)
    assert "\n" not in shown
    if plain(text):
        assert "".join(text_of(shown)) == plain(text)


def test_no_address_is_left_for_a_page_that_makes_links_of_bare_ones() -> None:
    shown = card.escaped(HOSTILE[3])
    assert not any(sign in shown for sign in ("://", "www.", "@", "evil.example"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_reason_leaves_the_rest_of_the_card_as_it_is(hostile: str) -> None:
    def shape(facts: Facts) -> list[str]:
        return [each.type for each in RENDERER.parse(card.written(facts))]

    assert shape(replace(FACTS, decision=hostile or "x")) == shape(FACTS)


@pytest.mark.parametrize(
    "said",
    [
        "# Attendance-fraud model of acme, version 3",
        "**Decision.** Activated",
        "A score is a reason to look",
        "6,000 events, 150 of them fraud, 2.50% of all",
        "2025-09-03 12:00 to 2026-03-02 12:00 UTC",
        "| PR-AUC (average precision) | 0.812 | 0.700 to 0.900 |",
        "| events held out | 1,200 |  |",
        "Judged by 31 frauds",
        "`fraud-assets history acme`",
        "`fraud-assets rollback acme EARLIER",
        "`fraud-assets rebuild acme 3`",
        "Version 12 of the table `training_dataset`, SHA-256 `dddd",
    ],
)
def test_the_card_says_what_a_reader_asks(said: str) -> None:
    assert said in card.written(FACTS)


def test_what_is_not_known_is_left_out() -> None:
    unknown: dict[str, Any] = {
        "window_start": None,
        "as_of": None,
        "dataset_version": None,
        "dataset_digest": None,
    }
    shown = card.written(replace(FACTS, metrics={}, records=0, fraud=0, **unknown))
    assert "0 events, 0 of them fraud." in shown
    assert not any(word in shown for word in ("None", "nan", "Punched in", "SHA-256", "Judged", "PR-AUC ("))


def test_a_card_is_never_longer_than_a_database_takes() -> None:
    shown = card.written(replace(FACTS, decision="<" * 10_000))
    assert len(shown) <= card.LONGEST
    assert "fraud-assets rebuild acme 3" in shown
