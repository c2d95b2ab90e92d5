"""Small holdouts and evidence for tests of the gate. No tests here."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from fraud_assets.compute.bootstrap import Compared, Interval
from fraud_assets.compute.evaluation import Metrics
from fraud_assets.compute.evidence import Evidence
from fraud_assets.compute.slices import SLICES
from fraud_assets_tests.builders import NOON, training_dataset

GOOD = Metrics(
    pr_auc=0.81,
    precision_at_target_recall=0.62,
    threshold=0.4,
    false_positive_rate=0.03,
    recall=0.8,
    roc_auc=0.9,
    base_rate=0.05,
    records=200,
    fraud=10,
    pr_auc_by_luck=0.31,
    intervals={"pr_auc": Interval(0.66, 0.9)},
)


def against(pr_auc: float, other: float, *, better: float = 1.0) -> Compared:
    """A comparison whose interval reaches 0.05 to either side."""
    gain = pr_auc - other
    return Compared(pr_auc, other, Interval(gain - 0.05, gain + 0.05), better)


def evidence(
    champion: float | None = None,
    rivals: dict[str, Compared] | None = None,
    collapse: tuple[str, ...] = (),
    **changes: Any,
) -> Evidence:
    """A good candidate without a champion, changed field by field; `champion` is its PR-AUC."""
    candidate = replace(GOOD, **changes)
    slices = pl.DataFrame([{"collapse": reason} for reason in collapse], schema={"collapse": pl.String})
    return Evidence(
        candidate=candidate,
        champion=None if champion is None else against(candidate.pr_auc, champion),
        rivals=rivals or {},
        slices=pl.concat([pl.DataFrame(schema=SLICES), slices], how="diagonal"),
    )


def holdout(random: np.random.Generator, records: int, fraud: int, guards: int) -> pl.DataFrame:
    """A holdout an event an hour, with `fraud` frauds at random rows of random guards."""
    is_fraud = np.zeros(records, dtype=bool)
    is_fraud[random.choice(records, fraud, replace=False)] = True
    return training_dataset(records).with_columns(
        guard_id=pl.Series([f"g{guard:03d}" for guard in random.integers(guards, size=records)]),
        punch_in_at=pl.Series([NOON + timedelta(hours=hour) for hour in range(records)]),
        is_fraud=pl.Series(is_fraud),
    )


def labels_of(frame: pl.DataFrame) -> np.ndarray:
    return frame["is_fraud"].to_numpy()
