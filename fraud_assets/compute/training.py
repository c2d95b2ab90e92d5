"""From a training dataset to a model, and from a model to scores. No MLflow, no disk, no clock.

What is fitted is what scores: both go through `matrix`, and a model is the bytes of one XGBoost
booster, so that the same bytes give the same scores everywhere.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import polars as pl

from fraud_assets.domain.errors import ModelDamaged, UnusableRecords
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES
from fraud_assets.domain.settings import Settings

if TYPE_CHECKING:
    from xgboost import Booster

ROUNDS: Final = 300
PARAMETERS: Final[dict[str, float | int | str]] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "learning_rate": 0.05,
    "max_depth": 4,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    # Weighting the positives costs average precision; these two win most of it back (docs/decisions).
    "min_child_weight": 10,
    "max_bin": 512,
    # What XGBoost estimates when the classes weigh the same; written down so that no release changes it.
    "base_score": 0.5,
}


@dataclass(frozen=True)
class Model:
    """A fitted booster as UBJSON, the features it expects in order, and the parameters it was fitted with."""

    content: bytes
    features: tuple[str, ...]
    parameters: dict[str, float | int | str]

    @property
    def digest(self) -> str:
        """SHA-256 of `content`, in hex."""
        return sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Split:
    """Two parts of a dataset in order of time: `train` is before `holdout_start`, `holdout` from it on."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    holdout_start: datetime


def features_digest(features: tuple[str, ...]) -> str:
    """SHA-256 of the names in their order, in hex."""
    return sha256(",".join(features).encode()).hexdigest()


def fingerprint(settings: Settings) -> str:
    """SHA-256 of all that decides, with the dataset, which model comes out: 64 hex digits."""
    decisive = {
        "parameters": PARAMETERS,
        "rounds": ROUNDS,
        "features": FEATURES,
        "seed": settings.seed,
        "holdout_share": settings.holdout_share,
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def split(dataset: pl.DataFrame, settings: Settings) -> Split:
    """The latest `holdout_share` of the events by `punch_in_at` held out.

    Events that tie at the boundary go to the holdout together, so that it may be a little larger.
    Raises UnusableRecords for an empty dataset.
    """
    if dataset.is_empty():
        raise UnusableRecords("expected training records to split, got none; widen the training window")
    ordered = dataset.sort("punch_in_at", "event_id")
    held_out = max(1, round(ordered.height * settings.holdout_share))
    start: datetime = ordered["punch_in_at"][-held_out]
    is_held_out = pl.col("punch_in_at") >= start
    return Split(ordered.filter(~is_held_out), ordered.filter(is_held_out), start)


def one_sided(dataset: pl.DataFrame, settings: Settings) -> str | None:
    """Why a part of the split cannot be used, in words: it lacks a class. None if both parts have both."""
    parts = split(dataset, settings)
    for name, part in {"training part": parts.train, "holdout": parts.holdout}.items():
        fraud = int(part["is_fraud"].sum())
        if not 0 < fraud < part.height:
            return f"the {name} has {fraud} frauds among {part.height} records, and needs both classes"
    return None


def matrix(frame: pl.DataFrame) -> np.ndarray:
    """The features of `frame` as float32, one row an event, columns in the order of FEATURES.

    Null becomes NaN, which XGBoost reads as missing; booleans become 0 and 1; an entry source
    becomes its place in ENTRY_SOURCES.
    """
    # A stored table gives the entry source back as text.
    source = pl.col("entry_source").cast(pl.Enum(ENTRY_SOURCES)).to_physical()
    return frame.with_columns(source).select(FEATURES).cast(pl.Float32).to_numpy()


def fit(train: pl.DataFrame, settings: Settings) -> Model:
    """A gradient-boosted classifier of `is_fraud`, to the bit the same for the same rows in any order.

    The number of threads does not change it either. Frauds weigh `scale_pos_weight` = legitimate /
    fraud, so that both classes weigh the same; scores are therefore ranks of suspicion, not rates.
    Raises UnusableRecords when a class is missing.
    """
    import xgboost

    ordered = train.sort("punch_in_at", "event_id")
    parameters = PARAMETERS | {"scale_pos_weight": _class_ratio(ordered["is_fraud"]), "seed": settings.seed}
    rows = xgboost.DMatrix(
        matrix(ordered),
        ordered["is_fraud"].cast(pl.Float32).to_numpy(),
        feature_names=list(FEATURES),
        nthread=settings.threads,
    )
    booster = xgboost.train({**parameters, "nthread": settings.threads}, rows, num_boost_round=ROUNDS)
    return Model(bytes(booster.save_raw("ubj")), FEATURES, parameters | {"rounds": ROUNDS})


def score(content: bytes, frame: pl.DataFrame, *, threads: int = 1) -> np.ndarray:
    """The suspicion of each event of `frame`, float64 from 0 to 1, in its order.

    `content` must have passed its digest check: XGBoost can abort or hang on damaged bytes.
    Raises ModelDamaged when it is not a model of FEATURES.
    """
    import xgboost

    booster = _booster(content, threads)
    features = tuple(booster.feature_names or ())
    if features != FEATURES:
        differing = sorted({*features} ^ {*FEATURES}) or "their order"
        raise ModelDamaged(
            f"expected a model of the {len(FEATURES)} features of this release, got one that differs in "
            f"{differing}; retrain the tenant"
        )
    if frame.is_empty():
        return np.empty(0)
    rows = xgboost.DMatrix(matrix(frame), feature_names=list(FEATURES), nthread=threads)
    return np.asarray(booster.predict(rows), dtype=np.float64)


def importance(model: Model) -> dict[str, float]:
    """The total gain of every feature, largest first; 0 for one that no tree uses."""
    gains = cast("dict[str, float]", _booster(model.content).get_score(importance_type="total_gain"))
    return dict(sorted(((name, gains.get(name, 0.0)) for name in model.features), key=lambda pair: -pair[1]))


def _class_ratio(is_fraud: pl.Series) -> float:
    fraud = int(is_fraud.sum())
    if not 0 < fraud < len(is_fraud):
        raise UnusableRecords(
            f"expected records of both classes to fit a model, got {fraud} frauds among {len(is_fraud)}; "
            "wait for reviewed outcomes"
        )
    return (len(is_fraud) - fraud) / fraud


def _booster(content: bytes, threads: int = 1) -> "Booster":
    import xgboost

    if not content:
        raise ModelDamaged("expected an XGBoost model as UBJSON, got no bytes; retrain the tenant")
    try:
        return xgboost.Booster({"nthread": threads}, model_file=bytearray(content))
    except xgboost.core.XGBoostError as error:
        raise ModelDamaged(
            "expected an XGBoost model as UBJSON, got other bytes; retrain the tenant"
        ) from error
