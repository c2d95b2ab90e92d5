"""From a training dataset to a model, and from a model to scores. No MLflow, no clock.

What is fitted is what scores: both go through `records.matrix`, and a model is the bytes of one XGBoost
booster with its calibration, so that the same bytes give the same scores everywhere. Which parameters are
tried is in `search`, how margins become probabilities in `calibration`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from fraud_assets.compute import calibration, records, search
from fraud_assets.compute.calibration import Calibration
from fraud_assets.compute.records import Part, Records
from fraud_assets.compute.search import Found, Parameters
from fraud_assets.domain.errors import ModelDamaged, UnusableRecords
from fraud_assets.domain.schemas import FEATURES
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
        "order": records.IN_TIME,
        "settings": settings.model_dump(include=chosen),
        "gap_seconds": gap.total_seconds(),
    }
    return sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def fit(train: Records, settings: Settings, gap: timedelta = timedelta(0), spill: str | None = None) -> Model:
    """A gradient-boosted classifier of `is_fraud`, to the bit the same for the same rows in any order.

    The number of threads does not change it. Nor does `spill`, the beginning of the paths where XGBoost then
    keeps the rows; without it they are in memory. Parameters and rounds are searched, and the scores are
    calibrated, on the latest part of `train`, `gap` after what a trial learns from; then all of `train` is
    fitted with them. Where that part is too small, the first trial's parameters are taken, and the weight of
    the frauds is taken back. Raises UnusableRecords when a class is missing.
    """
    import xgboost

    whole = records.part(train)
    _require_both_classes(whole)
    found, calibrated, trials = _searched(whole, settings, gap, spill)
    trial, rounds = (found.trial, found.rounds) if found else (search.TRIALS[0], search.ROUNDS)
    rows = _rows(whole, settings.threads, spill)
    parameters = trial.parameters(rows.get_label() == 1, settings.seed)
    booster = xgboost.train({**parameters, "nthread": settings.threads}, rows, rounds)
    calibrated = calibrated or calibration.prior(float(parameters["scale_pos_weight"]))
    calibration.attach(booster, calibrated)
    told: Parameters = {"rounds": rounds, "imbalance": trial.imbalance, "trials": trials}
    if found:
        told["validation_average_precision"] = found.average_precision
    return Model(bytes(booster.save_raw("ubj")), FEATURES, parameters | told | calibrated.as_dict())


def _searched(
    train: Part, settings: Settings, gap: timedelta, spill: str | None
) -> tuple[Found | None, Calibration | None, int]:
    """What the search found, its calibration, and the trials made; nothing if there is no validation part."""
    parts = records.validation(train, settings, gap)
    if parts is None:
        return None, None, 0
    trials = search.budget(train.records, settings)
    fitting, validation = (_rows(part, settings.threads, spill) for part in (parts.train, parts.holdout))
    found = search.search(fitting, validation, trials, settings)
    return found, calibration.platt(found.margins, validation.get_label() == 1), trials


def score(content: bytes, rows: Records, *, threads: int = 1) -> np.ndarray:
    """The calibrated probability of fraud of each of `rows`, float64 from 0 to 1, in their order.

    `content` must have passed its digest check: XGBoost can abort or hang on damaged bytes.
    Raises ModelDamaged when it is not a model of FEATURES, or its calibration cannot be read.
    """
    booster = _booster(content, threads)
    features = tuple(booster.feature_names or ())
    if features != FEATURES:
        differing = sorted({*features} ^ {*FEATURES}) or "their order"
        raise ModelDamaged(
            f"expected a model of the {len(FEATURES)} features of this release, got one that differs in "
            f"{differing}; retrain the tenant"
        )
    calibrated = calibration.read(booster)
    margins = [_margins(booster, some, threads) for some in records.frames(rows) if some.height]
    return calibrated.probabilities(np.concatenate(margins)) if margins else np.empty(0)


def _margins(booster: "Booster", frame: pl.DataFrame, threads: int) -> np.ndarray:
    import xgboost

    rows = xgboost.DMatrix(records.matrix(frame), feature_names=list(FEATURES), nthread=threads)
    return booster.predict(rows, output_margin=True)


def importance(model: Model) -> dict[str, float]:
    """The total gain of every feature, largest first; 0 for one that no tree uses."""
    gains = cast("dict[str, float]", _booster(model.content).get_score(importance_type="total_gain"))
    return dict(sorted(((name, gains.get(name, 0.0)) for name in model.features), key=lambda pair: -pair[1]))


def _require_both_classes(train: Part) -> None:
    if not min(train.classes):
        raise UnusableRecords(
            f"expected records of both classes to fit a model, got {train.fraud} frauds among "
            f"{train.records}; wait for reviewed outcomes"
        )


def _rows(part: Part, threads: int, spill: str | None) -> "DMatrix":
    """The rows of `part` as XGBoost reads them: in memory, or page by page from `spill` files."""
    import xgboost

    def given(frame: pl.DataFrame) -> dict[str, Any]:
        labels = frame["is_fraud"].cast(pl.Float32).to_numpy()
        return {"data": records.matrix(frame), "label": labels, "feature_names": list(FEATURES)}

    class Frames(xgboost.DataIter):
        def reset(self) -> None:
            self.frames = records.frames(part.rows)

        def next(self, input_data: Callable[..., None]) -> bool:
            frame = next(self.frames, None)
            if frame is not None:
                input_data(**given(frame))
            return frame is not None

    if spill is None:
        return xgboost.DMatrix(**given(part.rows.collect()), nthread=threads)
    return xgboost.DMatrix(Frames(cache_prefix=spill), nthread=threads)


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
