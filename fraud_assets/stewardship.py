"""What a person may ask and do about a tenant's active model. No command line, no Dagster: both call this.

Whatever is done is written to the ledger first, with a name and a reason, and then shown in the registry,
as the gate's own decisions are.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from fraud_assets import mirror, stored
from fraud_assets.compute import dataset
from fraud_assets.compute.activation import Candidate
from fraud_assets.compute.training import features_digest
from fraud_assets.domain.errors import InvalidSettings, Refused
from fraud_assets.domain.schemas import FEATURES
from fraud_assets.domain.settings import Settings
from fraud_assets.storage import provenance
from fraud_assets.storage.ledger import ADOPT, OVERRIDE, ROLL_BACK, Entry
from fraud_assets.storage.platform import Platform
from fraud_assets.stored import StoredDataset

LONGEST_REASON: Final = 500
LONGEST_NAME: Final = 100


@dataclass(frozen=True)
class Word:
    """Who decides, and why: one line each. Raises Refused for a blank, a long or an unprintable one."""

    by: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", _line("a name", self.by, LONGEST_NAME))
        object.__setattr__(self, "reason", _line("a reason", self.reason, LONGEST_REASON).rstrip("."))


@dataclass(frozen=True)
class Moved:
    """The activation that is in force; `is_new` is False if it was so before, and nothing was written."""

    entry: Entry
    is_new: bool

    @property
    def sentence(self) -> str:
        """What was done, in words."""
        if self.is_new:
            return self.entry.sentence
        return f"v{self.entry.model_version} is active already, nothing was written. {self.entry.sentence}"


@dataclass(frozen=True)
class Rebuilt:
    """A version made again. `recorded` and `made` are SHA-256 digests of the two model files.

    `differences` are those between then and now that may explain others, in words.
    """

    tenant: str
    version: int
    recorded: str
    made: str
    differences: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Whether both models are the same to the bit."""
        return self.recorded == self.made

    @property
    def sentence(self) -> str:
        """The answer, with what differs between then and now."""
        name = f"v{self.version} of {self.tenant}"
        if self.is_identical:
            said = f"{name} was made again, identical to the bit: SHA-256 {self.made}"
        else:
            said = f"{name} differs: SHA-256 {self.recorded} was recorded, {self.made} was made"
        return f"{said}; {'; '.join(self.differences) or 'code, libraries and data are the same'}."


def history(platform: Platform, tenant: str, at: datetime | None = None) -> list[Entry]:
    """Every decision about the tenant, oldest first; with `at` (aware), the one in force then, or none."""
    if at is None:
        return platform.ledger.history(tenant)
    active = platform.ledger.champion(tenant, at)
    return [active] if active else []


def instant(text: str) -> datetime:
    """An ISO 8601 instant with its offset. Raises Refused for anything else."""
    expected = "expected an instant with its offset such as 2026-06-01T02:00:00Z or 2026-06-01T04:00+02:00"
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(f"{expected}, got {text!r:.80}") from error
    if read.tzinfo is None:
        raise Refused(f"{expected}, got {text!r:.80} without an offset: add Z for UTC")
    return read


def roll_back(platform: Platform, tenant: str, version: int, word: Word, run_id: str | None = None) -> Moved:
    """Makes a version that was active before the champion again.

    The one that it replaces is not activated again by a retrain of the same data. Raises Refused for a
    version that was never active, and ModelDamaged for one that cannot be served.
    """
    known = platform.ledger.history(tenant)
    served = sorted({each.model_version or 0 for each in known if each.is_activation})
    if version not in served:
        names = ", ".join(f"v{each}" for each in served) or "none"
        raise Refused(
            f"expected a version of {tenant} that was active before ({names}), got v{version}; "
            "to activate one that was rejected, override its verdict with: fraud-assets activate"
        )
    return _activated(platform, _newest(known, version), ROLL_BACK, word, run_id)


def override(platform: Platform, tenant: str, version: int, word: Word, run_id: str | None = None) -> Moved:
    """Activates a version whatever was decided about it.

    Raises Refused for a version that was never decided on, and ModelDamaged for one that cannot be served.
    """
    known = platform.ledger.history(tenant)
    return _activated(platform, _newest(known, version), OVERRIDE, word, run_id)


def adopt(platform: Platform, tenant: str, word: Word, run_id: str | None = None) -> Moved:
    """Makes the version that somebody set by hand in the registry the champion of the ledger, too.

    Raises Refused if none is set, or it was never decided on, and ModelDamaged if it cannot be served.
    """
    found = platform.registry.champion_version(tenant)
    if found is None:
        raise Refused(f"expected the alias champion of {tenant} to name a version, got none to adopt")
    known = platform.ledger.history(tenant)
    return _activated(platform, _newest(known, found), ADOPT, word, run_id)


def _activated(platform: Platform, known: Entry, verdict: str, word: Word, run_id: str | None) -> Moved:
    """The one way in which a person changes the champion."""
    tenant, active = known.tenant, platform.ledger.champion(known.tenant)
    if active and active.model_version == known.model_version:
        # Whoever died between the ledger and the alias asks again.
        mirror.champion(platform, tenant, run_id)
        return Moved(active, is_new=False)
    platform.registry.load(tenant, known.model_version or 0, known.model_digest or "")
    entry = replace(
        known,
        decided_at=platform.now(),
        cycle_started_at=platform.cycle_start(tenant),
        verdict=verdict,
        reasons=(word.reason,),
        decided_by=word.by,
        champion_version=active and active.model_version,
        dagster_run_id=run_id,
    )
    platform.ledger.append(entry)
    mirror.show(platform, entry)
    return Moved(entry, is_new=True)


def _newest(known: list[Entry], version: int) -> Entry:
    """The newest decision on the version, which knows its digest, its data and its numbers."""
    for entry in reversed(known):
        if entry.model_version == version:
            return entry
    raise Refused(
        f"expected a version that was decided on, got v{version}; see fraud-assets history, or materialize "
        "active_model first"
    )


def rebuild(platform: Platform, tenant: str, version: int) -> Rebuilt:
    """Makes the version again, from the stored dataset and the settings that it names, and compares.

    Raises RegistryError if there is no such version, TableNotFound if its dataset is gone, and Refused if
    this release cannot make it.
    """
    recorded = platform.registry.version(tenant, version)
    rules = _settings(recorded)
    version_of_dataset = int(recorded.tags["dataset_version"])
    with stored.opened(platform, tenant, version_of_dataset, even_if_altered=True) as found:
        _, model = stored.fitted(found, rules)
        differences = tuple(_differences(recorded.tags, found, rules))
    decided = [each for each in platform.ledger.history(tenant) if each.model_version == version]
    return Rebuilt(
        tenant=tenant,
        version=version,
        # The ledger is the authority, as soon as it has heard of the version.
        recorded=(decided[-1].model_digest if decided else None) or recorded.digest,
        made=model.digest,
        differences=differences,
    )


def _settings(recorded: Candidate) -> Settings:
    tags, name = recorded.tags, f"v{recorded.version}"
    maker = f"release {tags.get('release', 'unknown')}, commit {tags.get('git_commit', 'unknown')}"
    if "settings" not in tags or "dataset_version" not in tags:
        raise Refused(f"expected {name} to name its settings and dataset, got a version of an older release")
    if tags.get("features_digest") != features_digest(FEATURES):
        raise Refused(
            f"expected {name} to have today's features, got others; rebuild it with its own {maker}"
        )
    try:
        return Settings.model_validate_json(tags["settings"])
    except ValidationError as error:
        raise InvalidSettings(
            f"expected settings of this release in {name}, got {error}; rebuild it with its own {maker}"
        ) from error


def _differences(then: Mapping[str, str], found: StoredDataset, rules: Settings) -> Iterator[str]:
    """What may explain other bits: the code and the libraries, and data or settings that were altered."""
    data = {"dataset_digest": dataset.digest(found.whole.rows)}
    now = provenance.of_code() | stored.made_from(found, rules) | data
    for name in sorted({*now, *({"git_commit"} & {*then})}):
        before, after = then.get(name, "not known"), now.get(name, "not known")
        if before != after:
            yield f"{name.replace('_', ' ')} was {before}, is {after}"


def _line(what: str, text: str, longest: int) -> str:
    """`text` as one line, which terminals, databases and pages can hold."""
    line = " ".join(text.split())
    if not line.rstrip("."):
        raise Refused(f"expected {what}, got none; say who decides and why")
    if len(line) > longest:
        raise Refused(f"expected {what} of at most {longest} characters, got {len(line)}")
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in line):
        raise Refused(f"expected {what} in printable characters, got {line!r:.80}")
    return line
