"""How a decision is shown: always the same numbers, and no text that is more than text."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.compute.activation import Champion
from fraud_assets.domain import text
from fraud_assets.orchestration.assets import decisions
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import champion_of
from fraud_assets_tests.builders import NOON, entry

NUMBERS = {
    *("pr_auc", "champion_pr_auc", "base_rate", "precision_at_80_recall"),
    *("labelled_rows", "fraud_rows", "model_age_days"),
    *("pr_auc_low", "pr_auc_high", "pr_auc_by_luck"),
    *("precision_at_80_recall_low", "precision_at_80_recall_high"),
    *("threshold", "false_positive_rate", "false_positive_rate_low", "false_positive_rate_high"),
    *("recall", "recall_low", "recall_high", "roc_auc", "roc_auc_low", "roc_auc_high"),
    *("brier_score", "brier_score_low", "brier_score_high", "calibration_error"),
    *("precision_at_desk", "precision_at_desk_low", "precision_at_desk_high"),
    *("holdout_records", "holdout_fraud"),
    *("pr_auc_gain", "pr_auc_gain_low", "pr_auc_gain_high"),
    *("rival_pr_auc", "rival_gain", "rival_gain_low", "rival_gain_high"),
}
MEASURED = entry(metrics={"pr_auc": 0.81, "precision_at_80_recall": 0.6, "champion_pr_auc": 0.79})
SKIPPED = entry(verdict="not trained", model_version=None, model_digest=None, pr_auc=None, records=0, fraud=0)
WEEK = timedelta(days=7)
HOSTILE = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "=1+1",
    "\x1b[31mred",
    "a\nb",
    "'; DROP",
    "\x00",
]


def shown(of: Entry | None, champion: Champion | None) -> dict[str, object]:
    metadata = decisions.shown("acme", "Because.", of, champion, NOON + WEEK)
    return {name: getattr(value, "value", value) for name, value in metadata.items()}


@pytest.mark.parametrize("champion", [None, champion_of(MEASURED)])
@pytest.mark.parametrize("of", [None, MEASURED, SKIPPED])
def test_the_same_numbers_are_always_there(of: Entry | None, champion: Champion | None) -> None:
    assert set(shown(of, champion)) == NUMBERS | {"decision", "tenant", "cycle_start"}


def test_the_sentence_and_the_tenant_come_first() -> None:
    assert list(shown(MEASURED, None).items())[:2] == [("decision", "Because."), ("tenant", "acme")]


def test_what_was_measured_is_shown_as_it_is() -> None:
    found = shown(MEASURED, champion_of(MEASURED))
    assert {name: found[name] for name in NUMBERS if found[name] is not None} == {
        "pr_auc": 0.81,
        "champion_pr_auc": 0.79,
        "base_rate": 56 / 1234,
        "precision_at_80_recall": 0.6,
        "labelled_rows": 1234,
        "fraud_rows": 56,
        "model_age_days": 7.0,
    }


def test_what_is_not_known_is_null_and_never_zero() -> None:
    found = decisions.shown("acme", "Because.", None, None, NOON)
    assert {name for name, value in found.items() if isinstance(value, dg.NullMetadataValue)} == NUMBERS


def test_no_records_have_no_base_rate_and_are_counted_as_none() -> None:
    found = shown(SKIPPED, None)
    assert (found["base_rate"], found["labelled_rows"], found["fraud_rows"]) == (None, 0, 0)


def test_an_observation_is_of_the_tenants_active_model_and_says_the_decision() -> None:
    observation = decisions.observed("acme", decisions.shown("acme", "Because.", SKIPPED, None, NOON))
    assert (observation.asset_key, observation.partition) == (dg.AssetKey("active_model"), "acme")
    assert observation.description == "Because."


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_in_a_table_stays_text(hostile: str) -> None:
    found = decisions.table(pl.DataFrame({"guard_id": [hostile], "rows": [3]}))
    assert [record.data for record in found.records] == [{"guard_id": text.shown(hostile), "rows": 3}]
    assert [column.type for column in found.schema.columns] == ["string", "string"]


@given(st.text())
def test_a_cell_is_one_short_line_of_text(cell: str) -> None:
    [record] = decisions.table(pl.DataFrame({"reason": [cell * 9]})).records
    assert str(record.data["reason"]).isprintable()
    assert len(str(record.data["reason"])) <= text.LONGEST


@pytest.mark.parametrize(
    "cell", [date(2026, 3, 2), datetime(2026, 3, 2, tzinfo=UTC), [1, 2], timedelta(days=1)]
)
def test_a_cell_of_another_type_is_shown_as_text(cell: object) -> None:
    [record] = decisions.table(pl.DataFrame({"of": [cell]})).records
    assert isinstance(record.data["of"], str)


def test_an_empty_table_keeps_its_columns() -> None:
    found = decisions.table(pl.DataFrame(schema={"table": pl.String, "rows": pl.Int64}))
    assert (list(found.records), [column.name for column in found.schema.columns]) == ([], ["table", "rows"])
