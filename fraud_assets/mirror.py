"""The registry as the mirror of the ledger: what people see there follows what was decided. Decides nothing.

The ledger is written first and is the authority. Everything here can be done again, and is, by the next
cycle: so a process that dies on the way leaves nothing half-done for longer than a day.
"""

from dataclasses import replace

from fraud_assets.compute import card
from fraud_assets.domain.errors import RegistryError, RegistryUnreachable
from fraud_assets.storage.ledger import FOUND_DAMAGED, PUT_BACK, ROLL_BACK, Entry
from fraud_assets.storage.platform import Platform


def show(platform: Platform, entry: Entry) -> None:
    """Lets the registry show a decision of the ledger on its version; an activation moves the alias, last.

    Idempotent: whoever died half-way, or comes again, does the same.
    """
    if entry.model_version is None:
        return
    notes = {
        "verdict": entry.verdict,
        "reason": entry.sentence,
        "decided_at": entry.decided_at.isoformat(),
        "decided_by": entry.decided_by or "the gate",
        "rebuild": f"fraud-assets rebuild {entry.tenant} {entry.model_version}",
        "compared_with": f"v{entry.champion_version}" if entry.champion_version else "no champion",
    }
    platform.registry.annotate(entry.tenant, entry.model_version, notes, card.written(_told(entry)))
    if entry.is_activation:
        platform.registry.set_champion(entry.tenant, entry.model_version, pr_auc=entry.pr_auc or 0.0)
    if entry.verdict == ROLL_BACK and entry.champion_version is not None:
        when = f"{entry.decided_at:%Y-%m-%d %H:%M} UTC"
        _mark(platform, entry.tenant, entry.champion_version, f"{when}. {entry.sentence}")


def _mark(platform: Platform, tenant: str, version: int, roll_back: str) -> None:
    """On the version that was rolled back from, if it is still there: that may be why."""
    try:
        platform.registry.annotate(tenant, version, {"rolled_back": roll_back})
    except RegistryUnreachable:
        raise
    except RegistryError:
        return


def _told(entry: Entry) -> card.Facts:
    return card.Facts(
        tenant=entry.tenant,
        version=entry.model_version or 0,
        decision=entry.sentence,
        metrics=entry.metrics,
        records=entry.records,
        fraud=entry.fraud,
        window_start=entry.window_start,
        as_of=entry.as_of,
        dataset_version=entry.dataset_version,
        dataset_digest=entry.dataset_digest,
    )


def champion(platform: Platform, tenant: str, run_id: str | None = None) -> str | None:
    """Lets the alias name the ledger's champion; a sentence if it did not, None if there was nothing to do.

    It differs when a run died between the ledger and the alias, or when somebody moved the alias by hand.
    Who wants to keep what was set by hand adopts it, with a reason, before the next cycle.
    """
    entry = platform.ledger.champion(tenant)
    found = platform.registry.champion_version(tenant)
    if found == (entry and entry.model_version):
        return None
    if entry is None:
        platform.registry.clear_champion(tenant)
        return f"The alias named v{found}, the ledger no champion: the alias was taken away."
    said = f"The alias named {f'v{found}' if found else 'no version'}, the ledger v{entry.model_version}"
    _note(platform, entry, PUT_BACK, f"{said[0].lower()}{said[1:]}", run_id)
    show(platform, entry)
    return f"{said}: the alias was put right."


def damage(platform: Platform, tenant: str, run_id: str | None = None) -> str | None:
    """Why the ledger's champion cannot be served, which the ledger then says too; None if it can.

    What the ledger says starts the retrain: the automation asks it alone, in one query for all tenants.
    """
    entry = platform.ledger.champion(tenant)
    if entry is None or entry.model_version is None or entry.model_digest is None:
        return None
    found = platform.registry.damage(tenant, entry.model_version, entry.model_digest)
    if found and not platform.ledger.damaged(tenant):
        _note(platform, entry, FOUND_DAMAGED, found, run_id)
    return found


def _note(platform: Platform, champion: Entry, verdict: str, reason: str, run_id: str | None) -> None:
    """What was found of the champion, by this cycle."""
    platform.ledger.append(
        replace(
            champion,
            decided_at=platform.now(),
            cycle_started_at=platform.cycle_start(champion.tenant),
            verdict=verdict,
            reasons=(reason,),
            decided_by=None,
            champion_version=champion.model_version,
            dagster_run_id=run_id,
        )
    )
