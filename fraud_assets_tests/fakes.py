"""What stands in for the slow parts: a registry in memory, and pictures that nobody looks at.

The registry behaves as `storage.registry.Registry` does; one contract suite holds both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from fraud_assets.compute import pictures
from fraud_assets.compute.activation import Candidate, Submission
from fraud_assets.compute.training import features_digest
from fraud_assets.domain.errors import ModelDamaged, RegistryError, RegistryUnreachable
from fraud_assets.domain.schemas import FEATURES, tenant_id
from fraud_assets.storage.registry import Erased


def draw_nothing(exchange: Callable[[object, str, object], None]) -> None:
    """No picture is drawn, which takes half of a small tenant's night; its files are there as always."""
    exchange(pictures, "draw", lambda *_: {f"{number}.png": b"drawn" for number in range(4)})
    exchange(pictures, "feature_importance", lambda *_: b"drawn")


@dataclass
class FakeRegistry:
    """Versions, files and aliases by tenant. A test may alter `files`, or set `is_reachable` to False."""

    versions: dict[str, list[Candidate]] = field(default_factory=dict)
    files: dict[tuple[str, int], bytes] = field(default_factory=dict)
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)
    cards: dict[tuple[str, int], str] = field(default_factory=dict)
    is_reachable: bool = True

    def prepare(self) -> None:
        if not self.is_reachable:
            raise RegistryUnreachable("expected an answer of the model registry, got none; try again")

    def register(self, tenant: str, submission: Submission) -> Candidate:
        known = self._versions(tenant)
        digest = submission.model.digest
        made = Candidate(len(known) + 1, f"run{len(known) + 1}", digest, submission.metrics, submission.tags)
        known.append(made)
        self.files[tenant, made.version] = submission.model.content
        self.aliases[tenant, "challenger"] = made.version
        return made

    def find(self, tenant: str, fingerprint: Mapping[str, str]) -> Candidate | None:
        found = (
            each for each in reversed(self._versions(tenant)) if fingerprint.items() <= each.tags.items()
        )
        return next(found, None)

    def version(self, tenant: str, version: int) -> Candidate:
        return self._tag(tenant, version, {})

    def challenger(self, tenant: str) -> Candidate | None:
        known = self._versions(tenant)
        version = self.aliases.get((tenant, "challenger"))
        return known[version - 1] if version else None

    def challenge(self, tenant: str, candidate: Candidate, facts: Mapping[str, str]) -> Candidate:
        tagged = self._tag(tenant, candidate.version, facts)
        self.aliases[tenant, "challenger"] = candidate.version
        return tagged

    def champion_version(self, tenant: str) -> int | None:
        self._versions(tenant)
        return self.aliases.get((tenant, "champion"))

    def set_champion(self, tenant: str, version: int, *, pr_auc: float) -> None:
        self._tag(tenant, version, {})
        self.aliases[tenant, "champion"] = version

    def clear_champion(self, tenant: str) -> None:
        self._versions(tenant)
        self.aliases.pop((tenant, "champion"), None)

    def annotate(self, tenant: str, version: int, notes: Mapping[str, str], card: str | None = None) -> None:
        self._tag(tenant, version, {key: str(value) for key, value in notes.items()})
        if card is not None:
            self.cards[tenant, version] = card

    def load(self, tenant: str, version: int, digest: str) -> bytes:
        known = self._versions(tenant)
        content = self.files.get((tenant, version))
        if content is None or sha256(content).hexdigest() != digest:
            raise ModelDamaged(
                f"expected v{version} of {tenant} with SHA-256 {digest:.12}, got another file or none"
            )
        if known[version - 1].tags["features_digest"] != features_digest(FEATURES):
            raise ModelDamaged(f"expected v{version} of {tenant} with today's features, got others")
        return content

    def damage(self, tenant: str, version: int, digest: str) -> str | None:
        try:
            self.load(tenant, version, digest)
        except ModelDamaged as error:
            return str(error)
        return None

    def erase(self, tenant: str) -> Erased:
        versions = len(self._versions(tenant))
        del self.versions[tenant]
        self.files = {key: value for key, value in self.files.items() if key[0] != tenant}
        self.aliases = {key: value for key, value in self.aliases.items() if key[0] != tenant}
        self.cards = {key: value for key, value in self.cards.items() if key[0] != tenant}
        return Erased(versions, versions)

    def run_link(self, run_id: str) -> str:
        return f"/#/experiments/1/runs/{run_id}"

    def _versions(self, tenant: str) -> list[Candidate]:
        self.prepare()
        return self.versions.setdefault(tenant_id(tenant), [])

    def _tag(self, tenant: str, version: int, tags: Mapping[str, str]) -> Candidate:
        known = self._versions(tenant)
        if not 1 <= version <= len(known):
            raise RegistryError(f"the model registry refused: no v{version} of {tenant}")
        known[version - 1] = replace(known[version - 1], tags={**known[version - 1].tags, **tags})
        return known[version - 1]
