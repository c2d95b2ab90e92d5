"""A version of a tenant's training dataset, read back: can it be trained on, and what comes out. No decision.

`cycle` trains on it and judges by it, `stewardship` makes a model again from it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Final

import polars as pl

from fraud_assets.compute import dataset, leaks, records, training
from fraud_assets.domain.errors import DiskFull, TableDamaged, TableNotFound
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.domain.settings import Settings
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.spool import Spool

_SPILLED_BYTES: Final = 16 * len(FEATURES)
"""Of a record in XGBoost's files: 8 a feature as a number, up to 4 as a bin, and the rest to spare."""


@dataclass(frozen=True)
class StoredDataset:
    """A version of the training dataset, as read back.

    `whole` is the dataset, with many records on disk. `spill` is then for what memory does not hold: the
    beginning of paths, as `training.fit` takes it. `set_aside` says which events were set aside before it was
    assembled; None: there were none. `label_delay_days` is None if it was made by an earlier release.
    """

    whole: records.Part
    version: int
    as_of: datetime
    digest: str
    set_aside: str | None
    window_start: datetime | None = None
    label_delay_days: float | None = None
    spill: str | None = None

    def gap(self, rules: Settings) -> timedelta:
        """Between training part and holdout: the label delay as it was measured with the dataset.

        `maturity_days` for a dataset of an earlier release, which did not measure it.
        """
        days = rules.maturity_days if self.label_delay_days is None else self.label_delay_days
        return timedelta(days=days)


@contextmanager
def opened(
    platform: Platform, tenant: str, version: int | None = None, *, even_if_altered: bool = False
) -> Iterator[StoredDataset]:
    """The newest version, or the one named, for as long as it is needed.

    Raises TableNotFound, DiskFull, and TableDamaged for one that cannot be read or, unless asked
    otherwise, was altered.
    """
    found = platform.tables.version(tenant, "training_dataset") if version is None else version
    if found is None:
        raise TableNotFound(
            f"expected a training dataset of {tenant}, found none; materialize training_dataset first"
        )
    facts = platform.tables.facts(tenant, "training_dataset", found)
    with platform.tables.scratch(tenant) as folder:
        rows = _spooled(platform, tenant, found, folder / "stored")
        if not even_if_altered:
            what = f"version {found} of the training dataset of {tenant}"
            require(facts["digest"], rows, what, "training_dataset")
        since, days, whole = facts.get("window_start"), facts.get("label_delay_days"), records.part(rows)
        yield StoredDataset(
            whole=whole,
            version=found,
            as_of=datetime.fromisoformat(facts["as_of"]),
            digest=facts["digest"],
            set_aside=facts.get("set_aside") or None,
            window_start=datetime.fromisoformat(since) if since else None,
            label_delay_days=float(days) if days else None,
            spill=_spill(folder, whole.records) if whole.records > platform.rows_in_memory else None,
        )


def _spill(folder: Path, records: int) -> str:
    """Where XGBoost may keep so many records. Raises DiskFull: on a full disk it would abort the process."""
    needed, free = records * _SPILLED_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"expected {needed / 2**20:,.0f} MiB of free disk to train on {records:,} records in parts, "
            f"found {free / 2**20:,.0f}; make room where the tenants' tables lie, then try again"
        )
    return str(folder / "fit")


def _spooled(platform: Platform, tenant: str, version: int, folder: Path) -> pl.LazyFrame:
    """The rows of the version as they were written; many lie in `folder`, row by row in their order."""
    parts = platform.tables.parts(tenant, "training_dataset", version)
    first = next(parts)
    return Spool(folder, first.clear(), platform.rows_in_memory).keep(chain([first], parts))


def require(digest: str, rows: pl.LazyFrame, what: str, asset: str) -> None:
    """Raises TableDamaged. Delta keeps no checksums: a file that was altered may be read without an error."""
    if (found := dataset.digest(rows)) != digest:
        raise TableDamaged(
            f"expected {what} with SHA-256 {digest:.12}, got {found:.12} (altered); materialize {asset} again"
        )


def shortage(stored: StoredDataset, rules: Settings) -> tuple[str, ...]:
    """Why the dataset cannot be trained on, and what was set aside; the one gate of check and training.

    Empty: it can be trained on.
    """
    whole = stored.whole
    reason = dataset.shortage(whole.records, whole.fraud, rules) or records.one_sided(
        whole.rows, rules, stored.gap(rules)
    )
    if reason is None:
        return ()
    return (reason, stored.set_aside) if stored.set_aside else (reason,)


def leaked(stored: StoredDataset, rules: Settings) -> tuple[str, ...]:
    """What in the dataset knows more than could be known: nothing is trained on it. Empty: nothing does."""
    found = leaks.find(stored.whole.rows, stored.as_of, rules)
    return tuple(f"the dataset has a leak: {leak}" for leak in found)


def made_from(stored: StoredDataset, rules: Settings) -> dict[str, str]:
    """What decides which model comes out: the same data and way of training give the same one."""
    return {"dataset_digest": stored.digest, "training": training.fingerprint(rules, stored.gap(rules))}


def split(stored: StoredDataset, rules: Settings) -> records.Split:
    """The records that are trained on, and those that the model is judged by."""
    return records.split(stored.whole.rows, rules, stored.gap(rules))


def fitted(stored: StoredDataset, rules: Settings) -> tuple[records.Split, training.Model]:
    """The one way from a dataset to its model, for `cycle.train` and for whoever makes it again."""
    parts = split(stored, rules)
    return parts, training.fit(parts.train.rows, rules, stored.gap(rules), stored.spill)
