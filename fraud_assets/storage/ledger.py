"""The append-only record of decisions: which model is active, since when and why. It decides nothing itself.

The ledger is the authority: the registry's alias and Dagster's pages mirror it. The database itself
refuses to change or delete an entry, but for the erasure of a whole tenant, of which a line is left.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from fraud_assets.domain.errors import InvalidSettings, LedgerUnreachable
from fraud_assets.domain.schemas import tenant_id
from fraud_assets.domain.text import printable
from fraud_assets.storage import sqlite, urls
from fraud_assets.storage.ledger_table import COLUMNS, DECISIONS, ERASE, LOCKS, prepare

ACTIVATE: Final = "activate"
ROLL_BACK: Final = "roll back"
OVERRIDE: Final = "override"
ADOPT: Final = "adopt"
PUT_BACK: Final = "put back"
FOUND_DAMAGED: Final = "found damaged"
BY_A_PERSON: Final = (ROLL_BACK, OVERRIDE, ADOPT)
ACTIVATIONS: Final = (ACTIVATE, *BY_A_PERSON)
"""The verdicts that make a version the champion. `put back` says that the alias was corrected, `found
damaged` that the champion can no longer be served."""
NOTES: Final = (PUT_BACK, FOUND_DAMAGED)
"""They decide nothing: a decision before them is still the newest."""

_OPENINGS: Final = {
    ACTIVATE: "Activated",
    "reject": "Rejected",
    ROLL_BACK: "Rolled back from v{was} to v{version} by {by}",
    OVERRIDE: "Override: v{version} activated by {by}",
    FOUND_DAMAGED: "The champion v{version} cannot be served and is trained again",
    ADOPT: "Set by hand in the registry, v{version} adopted by {by}",
    ERASE: "Erased by {by}",
}


@dataclass(frozen=True)
class Entry:
    """One decision about a tenant's model, by the gate or by a person.

    decided_at          when the decision was made; cycle_started_at: the start of the cycle it falls into
    verdict             "activate", "reject" or another word; reasons: why, in words
    decided_by          who, if a person decided; null: the gate
    champion_version    the version that was active then: what a candidate was compared with, and what an
                        activation took out of service; null if there was none
    window_start, as_of
                        the training dataset's window, [window_start, as_of); null: not known
    records, fraud      usable records of the training dataset, and the fraudulent ones among them
    model_version       the registry's number of the candidate, with model_digest, the SHA-256 of its
                        file; both null if none was trained, both known in an activation
    dataset_version     the table version of the training dataset, with dataset_digest, its SHA-256
    metrics             finite numbers by name; what is not known is left out

    Raises InvalidTenantId, and ValueError for anything else that is not so.
    """

    tenant: str
    decided_at: datetime
    cycle_started_at: datetime
    verdict: str
    reasons: tuple[str, ...]
    records: int
    fraud: int
    model_version: int | None = None
    model_digest: str | None = None
    pr_auc: float | None = None
    dataset_digest: str | None = None
    dataset_version: int | None = None
    dagster_run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    decided_by: str | None = None
    champion_version: int | None = None
    window_start: datetime | None = None
    as_of: datetime | None = None

    def __post_init__(self) -> None:
        tenant_id(self.tenant)
        instants = (self.decided_at, self.cycle_started_at, self.window_start, self.as_of)
        if any(instant is not None and instant.tzinfo is None for instant in instants):
            raise ValueError(f"expected aware instants, got {', '.join(map(str, instants))}")
        if not self.verdict.strip() or not self.reasons:
            raise ValueError(f"expected a verdict with reasons, got {self.verdict!r}, {self.reasons}")
        if self.is_activation and (self.model_version is None or self.model_digest is None):
            raise ValueError(f"expected an activation to name its model's version and digest, got {self}")
        if self.verdict in {*BY_A_PERSON, ERASE} and not (self.decided_by or "").strip():
            raise ValueError(f"expected the name of who decided on a verdict {self.verdict!r}, got none")
        if not all(isfinite(number) for number in [*self.metrics.values(), self.pr_auc or 0]):
            raise ValueError(
                f"expected finite metrics, got {self.metrics}, {self.pr_auc}; leave out the others"
            )

    @property
    def sentence(self) -> str:
        """The decision in words, on one line: a reason may name a site, and people write reasons."""
        opening = _OPENINGS.get(self.verdict)
        facts = {"was": self.champion_version, "version": self.model_version, "by": self.decided_by}
        said = opening.format(**facts) if opening else self.verdict.capitalize()
        return printable(f"{said}: {'; '.join(self.reasons)}.")

    @property
    def is_activation(self) -> bool:
        """Whether it made its version the champion."""
        return self.verdict in ACTIVATIONS

    @property
    def is_by_a_person(self) -> bool:
        """Whether a person made its version the champion, and not the gate."""
        return self.verdict in BY_A_PERSON


# PostgreSQL works longer to let somebody in than to answer: a connection is kept, and tried before each use.
_ENGINES: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {"poolclass": NullPool, "connect_args": {"timeout": 30}},
    "postgresql": {"pool_size": 1, "pool_pre_ping": True, "connect_args": {"connect_timeout": 10}},
}
_IS_ACTIVATION: Final = DECISIONS.c.verdict.in_(ACTIVATIONS)
_IS_DECISION: Final = DECISIONS.c.verdict != ERASE


@dataclass(frozen=True, repr=False)
class Ledger:
    """The ledger behind `sqlite:////absolute/path.db` or `postgresql://user:password@host:port/database`.

    Opens nothing until it is asked; then makes its table if there is none. Raises InvalidSettings for any
    other URL; every method raises LedgerUnreachable.
    """

    url: str

    def __post_init__(self) -> None:
        _parsed(self.url)

    def __repr__(self) -> str:
        """Without the password."""
        return f"Ledger({str(_parsed(self.url))!r})"

    def prepare(self) -> None:
        """Makes its table, or the columns that one of an earlier release lacks; entries stay as they are."""
        with self._transaction():
            pass

    def append(self, entry: Entry) -> bool:
        """Writes the decision; False, and nothing written, if it was taken already under the same champion.

        The same: of one cycle, verdict, model version and dataset digest. Once another version was the
        champion it may be taken again: going back to an earlier model is a decision of its own. A note is
        compared with the newest entry alone. Raises ValueError for an erasure.
        """
        if entry.verdict == ERASE:
            raise ValueError(f"expected a decision, got an erasure of {entry.tenant}; call erase")
        with self._transaction() as connection:
            # Two runs that decide the same at once wait for each other.
            connection.exec_driver_sql(LOCKS[connection.dialect.name])
            known = _history(connection, entry.tenant)
            lately = known[-1:] if entry.verdict in NOTES else _under_one_champion(known)
            if _identity(entry) in map(_identity, lately):
                return False
            connection.execute(DECISIONS.insert().values(_row(entry)))
            return True

    def erase(
        self, tenant: str, at: datetime, by: str, reason: str, *, is_noted: bool = False
    ) -> Entry | None:
        """Deletes all decisions about the tenant, in one transaction with the line that says so.

        None, and nothing written, if there were none; with `is_noted` the line is written all the same.
        Idempotent. Nothing is left in the file of an embedded ledger either.
        """
        with self._transaction() as connection:
            connection.exec_driver_sql(LOCKS[connection.dialect.name])
            query = sa.select(sa.func.count(), sa.func.count(sa.distinct(DECISIONS.c.model_version))).where(
                _is_of(tenant), _IS_DECISION
            )
            decisions, models = connection.execute(query).one()
            counts = {"decisions": float(decisions), "models": float(models)}
            line = Entry(tenant, at, at, ERASE, (reason,), 0, 0, metrics=counts, decided_by=by)
            if decisions or is_noted:
                # The database deletes the others as this one is written.
                connection.execute(DECISIONS.insert().values(_row(line)))
        url = _parsed(self.url)
        if url.get_backend_name() == "sqlite":
            sqlite.compact(Path(str(url.database)))
        return line if decisions or is_noted else None

    def champion(self, tenant: str, at: datetime | None = None) -> Entry | None:
        """The tenant's newest activation, whoever decided it; with `at` (aware), the newest one by then."""
        by_then = [DECISIONS.c.decided_at <= at] if at else []
        return self._newest(_is_of(tenant), _IS_ACTIVATION, *by_then).get(tenant)

    def champions(self) -> dict[str, Entry]:
        """The newest activation of every tenant that has one, in one query."""
        return self._newest(_IS_ACTIVATION)

    def damaged(self, tenant: str | None = None) -> dict[str, Entry]:
        """What was found of every tenant, or of that one, whose champion is damaged, in one query."""
        whose = [] if tenant is None else [_is_of(tenant)]
        newest = self._newest(DECISIONS.c.verdict.in_((*ACTIVATIONS, FOUND_DAMAGED)), *whose)
        return {name: entry for name, entry in newest.items() if entry.verdict == FOUND_DAMAGED}

    def rolled_back(self, tenant: str, model_digest: str) -> Entry | None:
        """The roll back that took this very model out of service; None if it was activated again since."""
        taken_out, active = None, None
        for entry in filter(lambda each: each.is_activation, self.history(tenant)):
            if entry.model_digest == model_digest:
                taken_out = None
            elif entry.verdict == ROLL_BACK and active == model_digest:
                taken_out = entry
            active = entry.model_digest
        return taken_out

    def latest(self, tenant: str, verdict: str | None = None) -> Entry | None:
        """The tenant's newest decision, whatever it was, or the newest with this verdict."""
        which = _IS_DECISION if verdict is None else DECISIONS.c.verdict == verdict
        return self._newest(_is_of(tenant), which).get(tenant)

    def latest_all(self) -> dict[str, Entry]:
        """The newest decision of every tenant that has one, in one query."""
        return self._newest(_IS_DECISION)

    def history(self, tenant: str) -> list[Entry]:
        """All decisions of the tenant, and erasures, in the order in which they were written."""
        with self._transaction() as connection:
            return _history(connection, tenant)

    def _newest(self, *conditions: sa.ColumnElement[bool]) -> dict[str, Entry]:
        with self._transaction() as connection:
            return _newest(connection, *conditions)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            said = str(error.orig).strip()
            raise LedgerUnreachable(
                f"expected the ledger {self} to answer, got: {said}; check that it is there and writable"
            ) from error

    @cached_property
    def _engine(self) -> sa.Engine:
        url = _parsed(self.url)
        engine = sa.create_engine(url, **_ENGINES[url.get_backend_name()])
        prepare(engine)
        return engine


def _parsed(url: str) -> sa.URL:
    parsed = urls.parsed(url)
    if parsed and parsed.drivername == "sqlite" and Path(parsed.database or "").is_absolute():
        return parsed
    if parsed and parsed.drivername in {"postgresql", "postgresql+psycopg2"} and parsed.host:
        return parsed.set(drivername="postgresql+psycopg2")
    raise InvalidSettings(
        "expected a ledger URL such as sqlite:////absolute/path.db or "
        f"postgresql://user:password@host:5432/database, got {urls.told(parsed)}; "
        "correct FRAUD_ASSETS_LEDGER_URL"
    )


def _is_of(tenant: str) -> sa.ColumnElement[bool]:
    return DECISIONS.c.tenant == tenant_id(tenant)


def _history(connection: sa.Connection, tenant: str) -> list[Entry]:
    query = sa.select(*COLUMNS).where(_is_of(tenant)).order_by(DECISIONS.c.sequence)
    return [_entry(row) for row in connection.execute(query).mappings()]


def _under_one_champion(known: Sequence[Entry]) -> Iterator[Entry]:
    """The decisions from the newest back to the one that made the present champion's version the champion."""
    version: int | None = None
    for entry in reversed(known):
        if entry.is_activation and entry.model_version != (version := version or entry.model_version):
            return
        if entry.verdict not in NOTES:
            yield entry


def _newest(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> dict[str, Entry]:
    """The newest entry of each tenant among those that meet the conditions."""
    newest = sa.select(sa.func.max(DECISIONS.c.sequence)).where(*conditions).group_by(DECISIONS.c.tenant)
    query = sa.select(*COLUMNS).where(DECISIONS.c.sequence.in_(newest))
    entries = [_entry(row) for row in connection.execute(query).mappings()]
    return {entry.tenant: entry for entry in entries}


def _identity(entry: Entry) -> tuple[datetime, str, int | None, str | None]:
    return entry.cycle_started_at, str(entry.verdict), entry.model_version, entry.dataset_digest


def _row(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "verdict": str(entry.verdict)}


def _entry(row: Mapping[Any, Any]) -> Entry:
    return Entry(**{**row, "reasons": tuple(row["reasons"])})
