"""The simpler models that a candidate has to beat, each a ranking of the holdout. Nothing of them is kept.

    constant             knows nothing; its PR-AUC is the share of fraud
    face check rule      the more doubtful the face, the more suspicious; no face check: not suspicious
    location rule        mock location, or a speed since the last fix that no traveller reaches
    logistic regression  linear in all features, fitted on the training part, or on a sample of a large one

What is not known never makes a rule fire. Only the regression fills gaps, with the median of the training
part and a flag that the value was missing; nobody else sees these values.
"""

# scikit-learn has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from fraud_assets.compute import records
from fraud_assets.compute.bootstrap import Numbers
from fraud_assets.compute.records import Records
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.domain.settings import Settings

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

AIRLINER_KMH: Final = 900.0
"""Cruising speed of an airliner: a guard who needs more was not at both places."""

_SOURCE: Final = FEATURES.index("entry_source")


def scores(train: Records, holdout: Records, settings: Settings) -> dict[str, Numbers]:
    """Each rival's ranking of `holdout`, by name; both parts have the schema TrainingDataset.

    `train` has both classes.
    """
    return {
        "a constant": np.zeros(holdout.lazy().select(pl.len()).collect().item()),
        "the face check rule": face_check(holdout),
        "the location rule": location(holdout),
        "logistic regression": _regression(train, holdout, settings.rival_records),
    }


def face_check(rows: Records) -> Numbers:
    """1 - face_recognition_confidence, so 1 from a face distance of 0.4 on; 0 without a check."""
    return records.column(rows, (1 - pl.col("face_recognition_confidence")).fill_null(0.0)).to_numpy()


def location(rows: Records) -> Numbers:
    """1 for a mock location, else the travel speed as a share of an airliner's, at most 1; 0 if not known."""
    faked = pl.col("is_mock_location").fill_null(value=False).cast(pl.Float64)
    speed = (pl.col("travel_speed_kmh") / AIRLINER_KMH).clip(upper_bound=1.0).fill_null(0.0)
    return records.column(rows, pl.max_horizontal(faked, speed)).to_numpy()


def _regression(train: Records, holdout: Records, most: int) -> Numbers:
    """The log-odds of fraud. One thread, so that the bits do not depend on the machine's.

    No more than `most` rows are in memory as the regression sees them, a few hundred bytes each.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        rows = _sample(records.laid_out(train), most).sort("punch_in_at", "event_id")
        fitted = _pipeline().fit(records.matrix(rows), rows["is_fraud"].to_numpy())
        parts = (part for some in records.frames(holdout) for part in some.iter_slices(most))
        return np.concatenate([fitted.decision_function(records.matrix(part)) for part in parts])


def _sample(train: pl.LazyFrame, most: int) -> pl.DataFrame:
    """`most` rows at even distances in time within each class; all of them if there are no more.

    The share of fraud stays what it is, to a record, and the first and the last row keep both classes in.
    """
    numbered = train.with_row_index("row")
    by_class = (
        numbered.select("is_fraud", "punch_in_at", "row").collect().sort("is_fraud", "punch_in_at", "row")
    )
    if by_class.height <= most:
        return train.collect()
    chosen = by_class["row"][np.linspace(0, by_class.height - 1, most).round().astype(np.int64)]
    return numbered.filter(pl.col("row").is_in(chosen.implode())).drop("row").collect(engine="streaming")


def _pipeline() -> "Pipeline":
    """Distances and speeds reach far: the inverse hyperbolic sine is linear near 0 and a logarithm beyond."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers = make_pipeline(
        FunctionTransformer(np.arcsinh),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    columns = [place for place in range(len(FEATURES)) if place != _SOURCE]
    by_kind = ColumnTransformer(
        [("numbers", numbers, columns), ("source", OneHotEncoder(handle_unknown="ignore"), [_SOURCE])],
        sparse_threshold=0.0,
    )
    return make_pipeline(by_kind, LogisticRegression(solver="newton-cholesky", max_iter=200))
