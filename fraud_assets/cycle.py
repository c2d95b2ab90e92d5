"""The four stages of a tenant's daily cycle over a `Platform`. No Dagster, no rules of its own.

Each stage reads what it needs from the stores, so that it can be run alone and again: a repeated stage
writes, registers and records nothing twice.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from fraud_assets import mirror
from fraud_assets.compute import (
    account,
    activation,
    dataset,
    delay,
    evidence,
    pictures,
    profiles,
    quality,
    rivals,
    training,
)
from fraud_assets.compute.account import Account
from fraud_assets.compute.activation import Candidate, Submission
from fraud_assets.compute.evidence import Evidence
from fraud_assets.domain import text
from fraud_assets.domain.errors import ModelDamaged, RegistryError, TableDamaged, TableNotFound
from fraud_assets.domain.schemas import LazyHistory, Profile, TrainingDataset
from fraud_assets.domain.settings import Settings
from fraud_assets.storage import provenance
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.spool import Spool
from fraud_assets.stored import StoredDataset, fitted, leaked, made_from, opened, require, shortage, split

CYCLE_STAGES = ("behavioural_profiles", "training_dataset", "trained_model", "active_model")
"""In the order in which they run."""

NOT_TRAINED = "not trained"
"""The verdict of a cycle that had too little to train on; the others are `activation.Verdict`."""


@dataclass(frozen=True)
class ProfilesMade:
    """`profiled` active guards have a profile at `as_of`; the others are in `made.skipped`."""

    as_of: datetime
    made: profiles.Profiles
    profiled: int
    account: Account
    table_version: int


@dataclass(frozen=True)
class DatasetMade:
    """The training dataset as stored, in numbers, and what was set aside on the way.

    `counts`, `window_start` and `digest` are those of `dataset.TrainingSet`, `features` is the summary.
    """

    as_of: datetime
    window_start: datetime
    newest_punch_in: datetime | None
    counts: Mapping[str, int]
    digest: str
    features: pl.DataFrame
    maturity: dataset.Maturity
    label_delay: delay.LabelDelay
    account: Account
    table_version: int


@dataclass(frozen=True)
class RowsSetAside:
    """What the newest cycle set aside; `by_rule` and `shares` have the schemas of `account`."""

    by_rule: pl.DataFrame
    shares: pl.DataFrame


def refresh_profiles(platform: Platform, tenant: str) -> ProfilesMade:
    """Profiles of every active guard at the cycle's start, and the weekly ones behind the dataset."""
    as_of, rules = platform.cycle_start(tenant), platform.settings(tenant)
    fingerprint = profiles.fingerprint(rules)
    with platform.tables.scratch(tenant) as folder:
        cleaned = platform.history(tenant, as_of, folder)
        stored = _stored_profiles(platform, tenant, fingerprint)
        corrupt = quality.corrupt_guards(cleaned, rules)
        made = profiles.refresh(stored, cleaned.history, as_of, rules, corrupt)
    before = _shares_before(platform, tenant, as_of)
    facts = {
        "as_of": as_of.isoformat(),
        "settings": fingerprint,
        "digest": dataset.digest(made.profiles.lazy()),
        "set_aside": cleaned.account.set_aside.write_json(),
        "shares_set_aside": account.compared(cleaned.account, before).write_json(),
    }
    version = platform.tables.write(tenant, "profiles", made.profiles, facts)
    # The newest version holds every snapshot that counts; unlike a dataset's, no model names an older one.
    platform.tables.prune(tenant, "profiles", keep=())
    profiled = made.profiles.filter(pl.col("snapshot_at") == as_of).height
    return ProfilesMade(as_of, made, profiled, cleaned.account, version)


def _stored_profiles(platform: Platform, tenant: str, fingerprint: str) -> pl.DataFrame:
    """Snapshots made under other rules, or damaged, are not mixed with new ones: they are made again."""
    try:
        if platform.tables.facts(tenant, "profiles")["settings"] == fingerprint:
            return _profiles(platform, tenant)
    except (TableNotFound, TableDamaged):
        pass
    return Profile.create_empty()


def _profiles(platform: Platform, tenant: str) -> pl.DataFrame:
    """Raises TableNotFound, and TableDamaged; an earlier release did not keep their digest."""
    facts, stored = platform.tables.facts(tenant, "profiles"), platform.tables.read(tenant, "profiles")
    if digest := facts.get("digest"):
        require(digest, stored.lazy(), f"profiles of {tenant}", "behavioural_profiles")
    return stored


def _shares_before(platform: Platform, tenant: str, as_of: datetime) -> pl.DataFrame:
    """What this cycle's shares are compared with; the same again for a cycle that is repeated.

    What was damaged is made again by this cycle, and compared with nothing.
    """
    try:
        cycle_before = datetime.fromisoformat(platform.tables.facts(tenant, "profiles")["as_of"])
        stored = rows_set_aside(platform, tenant).shares
    except (TableNotFound, TableDamaged):
        cycle_before, stored = as_of, pl.DataFrame(schema=account.SHARES)
    if cycle_before >= as_of:
        return stored.select("table", "period", "share_before", "share_before_rise")
    return account.to_compare_with(stored, platform.settings(tenant).set_aside_jump)


def rows_set_aside(platform: Platform, tenant: str) -> RowsSetAside:
    """As `refresh_profiles` counted them; empty if an earlier release made the profiles.

    Raises TableNotFound.
    """
    facts = platform.tables.facts(tenant, "profiles")
    return RowsSetAside(
        by_rule=pl.read_json(facts.get("set_aside", "[]").encode(), schema=account.BY_RULE),
        shares=pl.read_json(facts.get("shares_set_aside", "[]").encode(), schema=account.SHARES),
    )


def assemble_dataset(platform: Platform, tenant: str) -> DatasetMade:
    """The labelled events of the last 180 days, stored under a version number."""
    as_of, rules = platform.cycle_start(tenant), platform.settings(tenant)
    with platform.tables.scratch(tenant) as folder:
        cleaned = platform.history(tenant, as_of, folder)
        spool = Spool(folder / "dataset", TrainingDataset.create_empty(), platform.rows_in_memory)
        stored = _profiles(platform, tenant)
        made = dataset.assemble(cleaned.history, stored, as_of, rules, spool.keep)
        before, moments = _dataset_before(platform, tenant, as_of), dataset.moments(made.frame)
        label_delay = delay.measure(*_reviewed(cleaned.history), as_of, rules)
        facts = {
            "as_of": as_of.isoformat(),
            "window_start": made.window_start.isoformat(),
            "digest": made.digest,
            "set_aside": account.in_words(cleaned.account, "attendance_event") or "",
            "version_before": "" if before is None else str(before),
            "features": moments.write_json(),
            "label_delay_days": str(label_delay.days),
            **{name: str(count) for name, count in made.counts.items()},
        }
        return DatasetMade(
            as_of=as_of,
            window_start=made.window_start,
            newest_punch_in=made.frame.select(pl.col("punch_in_at").max()).collect().item(),
            counts=made.counts,
            digest=made.digest,
            features=dataset.summary(moments, _moments(platform, tenant, before)),
            maturity=dataset.maturity(made, cleaned.history, rules),
            label_delay=label_delay,
            account=cleaned.account,
            table_version=_store_dataset(platform, tenant, made.frame, facts),
        )


def _reviewed(history: LazyHistory) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The events with an outcome, and the outcomes."""
    events = history.attendance_event.select("event_id", "punch_in_at")
    return events.join(history.outcome.lazy(), on="event_id", how="semi").collect(), history.outcome


def _dataset_before(platform: Platform, tenant: str, as_of: datetime) -> int | None:
    """The newest version of an earlier cycle; a cycle that is repeated has the same one before it again.

    None if there is none, or the newest is damaged: it is made again.
    """
    version = platform.tables.version(tenant, "training_dataset")
    try:
        facts = platform.tables.facts(tenant, "training_dataset", version)
    except (TableNotFound, TableDamaged):
        return None
    if datetime.fromisoformat(facts["as_of"]) < as_of:
        return version
    return int(facts["version_before"]) if facts.get("version_before") else None


def _moments(platform: Platform, tenant: str, version: int | None) -> pl.DataFrame | None:
    """Those of the dataset's version; None if no version is named, or an earlier release made it."""
    facts = {} if version is None else platform.tables.facts(tenant, "training_dataset", version)
    return pl.read_json(facts["features"].encode(), schema=dataset.MOMENTS) if "features" in facts else None


def _store_dataset(platform: Platform, tenant: str, frame: pl.LazyFrame, facts: Mapping[str, str]) -> int:
    """The version of `frame`: a new one, unless the newest has the same digest and cut-off, and is whole."""
    version = platform.tables.version(tenant, "training_dataset")
    if version is not None:
        with suppress(TableDamaged):
            if platform.tables.facts(tenant, "training_dataset", version) == facts:
                with opened(platform, tenant, version):
                    return version
    return platform.tables.write(tenant, "training_dataset", frame, facts)


def train(platform: Platform, tenant: str, run_id: str | None) -> Candidate | Entry:
    """The candidate of the newest dataset, or the ledger's entry that says why none was trained.

    A model that was made from the same dataset in the same way is found again, not made again.
    """
    with opened(platform, tenant) as stored:
        rules = platform.settings(tenant)
        if reasons := shortage(stored, rules) or leaked(stored, rules):
            return _recorded(platform, tenant, stored, NOT_TRAINED, reasons, run_id)
        facts = _named(stored)
        found = platform.registry.find(tenant, made_from(stored, rules))
        if found and platform.registry.damage(tenant, found.version, found.digest) is None:
            return platform.registry.challenge(tenant, found, facts)
        facts |= made_from(stored, rules) | _made_with(rules) | {"dagster_run_id": run_id or ""}
        return platform.registry.register(tenant, _submission(stored, rules, facts))


def _named(stored: StoredDataset) -> dict[str, str]:
    """How to read the very dataset back, in the words of a version's tags."""
    return {
        "cycle_started_at": stored.as_of.isoformat(),
        "dataset_table": "training_dataset",
        "dataset_version": str(stored.version),
        "window_start": stored.window_start.isoformat() if stored.window_start else "",
        "as_of": stored.as_of.isoformat(),
    }


def _made_with(rules: Settings) -> dict[str, str]:
    """The code, the libraries and all settings, so that the model can be made again under other ones."""
    return {**provenance.of_code(), "seed": str(rules.seed), "settings": rules.model_dump_json()}


def _submission(stored: StoredDataset, rules: Settings, facts: Mapping[str, str]) -> Submission:
    parts, model = fitted(stored, rules)
    scores = training.score(model.content, parts.holdout.rows, threads=rules.threads)
    simpler = rivals.scores(parts.train.rows, parts.holdout.rows, rules)
    judged = evidence.judged(parts.holdout.rows)
    found = evidence.gather(judged, scores, simpler, rules)
    drawn = pictures.draw(judged, scores, simpler, rules)
    drawn["feature_importance.png"] = pictures.feature_importance(training.importance(model))
    files = {**drawn, "slices.csv": _sheet(found.slices)}
    return Submission(model, found.candidate, stored.digest, facts, parts.train, parts.holdout, files)


def _sheet(frame: pl.DataFrame) -> bytes:
    """CSV for a spreadsheet."""
    texts = pl.col(pl.String).map_elements(text.cell, return_dtype=pl.String)
    return frame.with_columns(texts).write_csv().encode()


def decide(platform: Platform, tenant: str, run_id: str | None) -> Entry:
    """Holds the candidate against the rules and the champion, records the decision, and activates.

    The ledger comes first and is the authority; the alias follows it, also where an earlier run died
    between the two. Where `train` found too little to train on, that is the decision, also for a run that
    died after it and is made again from here. Raises RegistryError if there is no candidate.
    """
    candidate = platform.registry.challenger(tenant)
    if not_trained := _not_trained_since(platform, tenant, candidate):
        return not_trained
    if candidate is None:
        raise RegistryError(
            f"expected a candidate of {tenant} to decide on, got none; materialize trained_model first"
        )
    if in_force := _in_force(platform, tenant, candidate):
        mirror.show(platform, in_force)
        return in_force
    with opened(platform, tenant, int(candidate.tags["dataset_version"])) as stored:
        entry = _decided(platform, tenant, candidate, stored, run_id)
    mirror.show(platform, entry)
    return entry


def _not_trained_since(platform: Platform, tenant: str, candidate: Candidate | None) -> Entry | None:
    """Why a later cycle than the candidate's had none."""
    entry = platform.ledger.latest(tenant, NOT_TRAINED)
    if entry is None or candidate is None:
        return entry
    made_in = datetime.fromisoformat(candidate.tags["cycle_started_at"])
    return entry if made_in < entry.cycle_started_at else None


def _decided(
    platform: Platform, tenant: str, candidate: Candidate, stored: StoredDataset, run_id: str | None
) -> Entry:
    """The decision on `candidate`, by the dataset that it was made from, and recorded."""
    found, damage = _evidence(platform, tenant, candidate, stored)
    rules = platform.settings(tenant)
    decision = _not_again(platform, tenant, candidate, activation.decide(found, rules))
    reasons, numbers = (*decision.reasons, *damage), found.as_dict()
    return _recorded(platform, tenant, stored, decision.verdict, reasons, run_id, candidate, numbers)


def _evidence(
    platform: Platform, tenant: str, candidate: Candidate, stored: StoredDataset
) -> tuple[Evidence, tuple[str, ...]]:
    """What is held for and against `candidate`; a damaged champion counts as none, with the reason."""
    rules = platform.settings(tenant)
    parts = split(stored, rules)
    holdout = parts.holdout.rows
    scores = _scores(platform, tenant, candidate.version, candidate.digest, holdout)
    simpler = rivals.scores(parts.train.rows, holdout, rules)
    champion, damage = _champion_on(platform, tenant, holdout)
    return evidence.gather(evidence.judged(holdout), scores, simpler, rules, champion), damage


def _in_force(platform: Platform, tenant: str, candidate: Candidate) -> Entry | None:
    """The activation of this very version, by this cycle or by a person: it is not judged against itself."""
    active = platform.ledger.champion(tenant)
    if active is None or active.model_version != candidate.version:
        return None
    is_of_this_cycle = active.cycle_started_at.isoformat() == candidate.tags["cycle_started_at"]
    return active if is_of_this_cycle or active.is_by_a_person else None


def _not_again(
    platform: Platform, tenant: str, candidate: Candidate, decision: activation.Decision
) -> activation.Decision:
    """A model that was rolled back from stays out until other data or another training give another one."""
    taken_out = platform.ledger.rolled_back(tenant, candidate.digest)
    if taken_out is None or decision.verdict is not activation.Verdict.ACTIVATE:
        return decision
    when, why = f"{taken_out.decided_at:%Y-%m-%d %H:%M} UTC", "; ".join(taken_out.reasons)
    same = f"it is the model that {taken_out.decided_by} rolled back from on {when} ({why})"
    until = "the same data and training do not bring it back"
    return replace(decision, verdict=activation.Verdict.REJECT, reasons=(same, until))


def _champion_on(
    platform: Platform, tenant: str, holdout: pl.LazyFrame
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The champion's scores of the candidate's holdout; a damaged one counts as none, with the reason."""
    champion = platform.champion(tenant)
    if champion is None:
        return None, ()
    try:
        return _scores(platform, tenant, champion.version, champion.digest, holdout), ()
    except ModelDamaged as error:
        return None, (f"champion v{champion.version} is not compared: {error}",)


def _scores(platform: Platform, tenant: str, version: int, digest: str, holdout: pl.LazyFrame) -> np.ndarray:
    content = platform.registry.load(tenant, version, digest)
    return training.score(content, holdout, threads=platform.settings(tenant).threads)


def _recorded(
    platform: Platform,
    tenant: str,
    stored: StoredDataset,
    verdict: str,
    reasons: tuple[str, ...],
    run_id: str | None,
    candidate: Candidate | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Entry:
    """The decision as the ledger keeps it."""
    champion = platform.ledger.champion(tenant)
    entry = Entry(
        tenant=tenant,
        decided_at=platform.now(),
        cycle_started_at=stored.as_of,
        verdict=verdict,
        reasons=reasons,
        records=stored.whole.records,
        fraud=stored.whole.fraud,
        model_version=candidate and candidate.version,
        model_digest=candidate and candidate.digest,
        pr_auc=(numbers or {}).get("pr_auc"),
        dataset_digest=stored.digest,
        dataset_version=stored.version,
        dagster_run_id=run_id,
        metrics=dict(numbers or {}),
        champion_version=champion and champion.model_version,
        window_start=stored.window_start,
        as_of=stored.as_of,
    )
    platform.ledger.append(entry)
    return entry


def retrain_due(
    platform: Platform,
    tenant: str,
    cycle_start: datetime,
    retrain_after: timedelta,
    damage: str | None = None,
) -> activation.Due:
    """Whether the cycle that starts at `cycle_start` trains the tenant's model again.

    `retrain_after` is the platform's rule; the tenant's settings may override it. `damage` says why the
    champion cannot be served, if it cannot.
    """
    limit = platform.settings(tenant).retrain_limit(retrain_after)
    return activation.retrain(platform.champion(tenant), damage, cycle_start, limit)
