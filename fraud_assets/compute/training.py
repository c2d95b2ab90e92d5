"""From a training dataset to a model, and from a model to scores. No MLflow, no disk, no clock.

What is fitted is what scores: both go through `matrix`, and a model is the bytes of one XGBoost
booster with its calibration, so that the same bytes give the same scores everywhere. Which parameters are
tried is in `search`, how margins become probabilities in `calibration`.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from fraud_assets.compute import calibration, search
from fraud_assets.compute.calibration import Calibration
from fraud_assets.compute.search import Found, Parameters
from fraud_assets.domain.errors import ModelDamaged, UnusableRecords
from fraud_assets.domain.schemas import ENTRY_SOURCES, FEATURES
from fraud_assets.domain.settings import Settings

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix


@dataclass(frozen=True)
class Model:
    """A fitted booster as UBJSON, the features it expects in order, and how it came about.

    `parameters` are XGBoost's, and `rounds`, `imbalance` and `trials` of the search, its
    `validation_average_precision` where there was one, and `calibration` with its slope and intercept.
    """

    content: bytes
    features: tuple[str, ...]
    parameters: Parameters

    @property
    def digest(self) -> str:
        """SHA-256 of `content`, in hex."""
        return sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Split:
    """Two parts of a dataset in order of time: `holdout` is from `holdout_start` on, `train` well before.

    `left_out` records are in neither part: punched in less than the gap before `holdout_start`.
    """

    train: pl.DataFrame
    holdout: pl.DataFrame
    holdout_start: datetime
    left_out: int


def features_digest(features: tuple[str, ...]) -> str:
    """SHA-256 of the names in their order, in hex."""
    return sha256(",".join(features).encode()).hexdigest()


def fingerprint(settings: Settings, gap: timedelta) -> str:
    """SHA-256 of all that decides, with the dataset, which model comes out: 64 hex digits."""
    chosen = {"seed", "holdout_share", "validation_share", "minimum_validation_fraud", "search_seconds"}
    decisive = {
        "search": [repr(trial) for trial in search.TRIALS],
        "limits": [search.ROUNDS, search.MOST_ROUNDS, search.PATIENCE, search.MARGIN, search.ROWS_A_SECOND],
        "features": FEATURES,
        "settings": settings.model_dump(include=chosen),
        "gap_seconds": gap.total_seconds(),
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def split(dataset: pl.DataFrame, settings: Settings, gap: timedelta) -> Split:
    """The latest `holdout_share` of the events by `punch_in_at` held out, with `gap` before them left out.

    With the label delay as gap, `train` has the records whose labels were known when the holdout began, as
    in service: a model that learnt from later ones would look better than it will be. The gap is kept
    whole for a tenant with little history too; it may leave nothing to train on. Events that tie at the
    boundary go to the holdout together, so that it may be a little larger; an event exactly the gap before
    it is trained on. Raises UnusableRecords for an empty dataset.
    """
    if dataset.is_empty():
        raise UnusableRecords("expected training records to split, got none; widen the training window")
    ordered = dataset.sort("punch_in_at", "event_id")
    held_out = max(1, round(ordered.height * settings.holdout_share))
    start: datetime = ordered["punch_in_at"][-held_out]
    holdout = ordered.filter(pl.col("punch_in_at") >= start)
    is_known = (pl.col("punch_in_at") < start) & (pl.col("punch_in_at") <= start - gap)
    train = ordered.filter(is_known)
    return Split(train, holdout, start, ordered.height - train.height - holdout.height)


def one_sided(dataset: pl.DataFrame, settings: Settings, gap: timedelta) -> str | None:
    """Why a part of the split cannot be used, in words: it lacks a class. None if both parts have both."""
    parts = split(dataset, settings, gap)
    for name, part in {"training part": parts.train, "holdout": parts.holdout}.items():
        fraud = int(part["is_fraud"].sum())
        if not 0 < fraud < part.height:
            counts = f"the {name} has {fraud} frauds among {part.height} records, and needs both classes"
            days = f"{gap / timedelta(days=1):g} days"
            between = f"; the {days} before the holdout, {parts.left_out} records, are not trained on"
            return counts + between if part is parts.train and parts.left_out else counts
    return None


def matrix(frame: pl.DataFrame) -> np.ndarray:
    """The features of `frame` as float32, one row an event, columns in the order of FEATURES.

    Null becomes NaN, which XGBoost reads as missing; booleans become 0 and 1; an entry source
    becomes its place in ENTRY_SOURCES.
    """
    # A stored table gives the entry source back as text.
    source = pl.col("entry_source").cast(pl.Enum(ENTRY_SOURCES)).to_physical()
    return frame.with_columns(source).select(FEATURES).cast(pl.Float32).to_numpy()


def fit(train: pl.DataFrame, settings: Settings, gap: timedelta = timedelta(0)) -> Model:
    """A gradient-boosted classifier of `is_fraud`, to the bit the same for the same rows in any order.

    The number of threads does not change it either. Parameters and rounds are searched, and the scores are
    calibrated, on the latest part of `train`, `gap` after what a trial learns from; then all of `train` is
    fitted with them. Where that part is too small, the first trial's parameters are taken, and the weight
    of the frauds is taken back. Raises UnusableRecords when a class is missing.
    """
    import xgboost

    ordered = train.sort("punch_in_at", "event_id")
    is_fraud = ordered["is_fraud"].to_numpy()
    _require_both_classes(is_fraud)
    found, calibrated, trials = _searched(ordered, settings, gap)
    trial, rounds = (found.trial, found.rounds) if found else (search.TRIALS[0], search.ROUNDS)
    parameters = trial.parameters(is_fraud, settings.seed)
    booster = xgboost.train(
        {**parameters, "nthread": settings.threads}, _rows(ordered, settings.threads), rounds
    )
    calibrated = calibrated or calibration.prior(float(parameters["scale_pos_weight"]))
    calibration.attach(booster, calibrated)
    told: Parameters = {"rounds": rounds, "imbalance": trial.imbalance, "trials": trials}
    if found:
        told["validation_average_precision"] = found.average_precision
    return Model(bytes(booster.save_raw("ubj")), FEATURES, parameters | told | calibrated.as_dict())


def _searched(
    ordered: pl.DataFrame, settings: Settings, gap: timedelta
) -> tuple[Found | None, Calibration | None, int]:
    """What the search found, its calibration, and the trials made; nothing if there is no validation part."""
    parts = validation_parts(ordered, settings, gap)
    if parts is None:
        return None, None, 0
    trials = search.budget(ordered.height, settings)
    fitting, validation = (_rows(part, settings.threads) for part in (parts.train, parts.holdout))
    found = search.search(fitting, validation, trials, settings)
    return found, calibration.platt(found.margins, parts.holdout["is_fraud"].to_numpy()), trials


def validation_parts(train: pl.DataFrame, settings: Settings, gap: timedelta) -> Split | None:
    """`train` parted in time for the search: what a trial is fitted on, and the latest `validation_share`.

    The gap between them is left out if half of `train` is left to fit on, else there is none: labels of
    both parts are known anyway, and too few records would mislead the search more. None if a part has
    fewer than `minimum_validation_fraud` records of a class.
    """
    shares = settings.model_copy(update={"holdout_share": settings.validation_share})
    parts = split(train, shares, gap)
    if parts.train.height < train.height / 2:
        parts = split(train, shares, timedelta(0))
    for part in (parts.train, parts.holdout):
        fraud = int(part["is_fraud"].sum())
        if min(fraud, part.height - fraud) < settings.minimum_validation_fraud:
            return None
    return parts


def score(content: bytes, frame: pl.DataFrame, *, threads: int = 1) -> np.ndarray:
    """The calibrated probability of fraud of each event of `frame`, float64 from 0 to 1, in its order.

    `content` must have passed its digest check: XGBoost can abort or hang on damaged bytes.
    Raises ModelDamaged when it is not a model of FEATURES, or its calibration cannot be read.
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
    calibrated = calibration.read(booster)
    if frame.is_empty():
        return np.empty(0)
    rows = xgboost.DMatrix(matrix(frame), feature_names=list(FEATURES), nthread=threads)
    return calibrated.probabilities(booster.predict(rows, output_margin=True))


def importance(model: Model) -> dict[str, float]:
    """The total gain of every feature, largest first; 0 for one that no tree uses."""
    gains = cast("dict[str, float]", _booster(model.content).get_score(importance_type="total_gain"))
    return dict(sorted(((name, gains.get(name, 0.0)) for name in model.features), key=lambda pair: -pair[1]))


def _require_both_classes(is_fraud: npt.NDArray[np.bool_]) -> None:
    fraud = int(is_fraud.sum())
    if not 0 < fraud < is_fraud.size:
        raise UnusableRecords(
            f"expected records of both classes to fit a model, got {fraud} frauds among {is_fraud.size}; "
            "wait for reviewed outcomes"
        )


def _rows(frame: pl.DataFrame, threads: int) -> "DMatrix":
    import xgboost

    labels = frame["is_fraud"].cast(pl.Float32).to_numpy()
    return xgboost.DMatrix(matrix(frame), labels, feature_names=list(FEATURES), nthread=threads)


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
