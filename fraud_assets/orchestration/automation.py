"""What starts runs: the job, the nightly automation per tenant, and the sensor that follows the tenants."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta

import dagster as dg
from dagster._core.asset_graph_view.entity_subset import EntitySubset

from fraud_assets import cycle
from fraud_assets.compute.activation import Champion, retrain
from fraud_assets.domain.errors import FraudAssetsError, InvalidSettings
from fraud_assets.domain.settings import Settings, for_tenant
from fraud_assets.domain.text import printable
from fraud_assets.orchestration.assets.model import fail_window
from fraud_assets.orchestration.checks import CHAMPION_IS_FRESH
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import Platform, champion_of

Opener = Callable[[], Platform]
Found = EntitySubset[dg.AssetKey]

PATIENCE = timedelta(hours=3)
"""How long a night may take to retrain. A retrain is due at the very age at which a champion turns stale:
that is reported where the night did not bring one."""

tenant_cycle = dg.define_asset_job(
    "tenant_cycle",
    selection=list(cycle.CYCLE_STAGES),
    description=(
        "The whole chain for a tenant, retrain due or not. Launch it over all tenants to backfill: a job's "
        "backfill is judged by its runs, so a tenant with too few records does not turn it red."
    ),
)


class TenantCondition(dg.AutomationCondition[dg.AssetKey]):
    """Narrows the candidates to the tenants that `chosen` names. It needs the user code server."""

    def __init__(self, open_platform: Opener) -> None:
        self.open_platform = open_platform

    @property
    def requires_cursor(self) -> bool:
        return False

    def chosen(self, platform: Platform, keys: Set[str], since: datetime, now: datetime) -> Iterator[str]:
        """The tenants among `keys` for which the condition is true at `now`, last evaluated at `since`."""
        raise NotImplementedError

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        return dg.AutomationResult(context, self.found(context, context.previous_evaluation_time))

    def found(self, context: dg.AutomationContext[dg.AssetKey], since: datetime | None) -> Found:
        """The candidates for which the condition is true; none at the first evaluation."""
        candidates = context.candidate_subset
        if since is None or candidates.is_empty:
            return context.get_empty_subset()
        keys = candidates.expensively_compute_partition_keys()
        chosen = set(self.chosen(self.open_platform(), keys, since, context.evaluation_time))
        return candidates.compute_intersection_with_partition_keys(chosen)


class CycleStarts(TenantCondition):
    """True once for each active tenant when the start of its daily cycle (02:00 by default) has passed.

    Its cursor is the latest evaluation there ever was: a clock that is set back does not start the same cycle
    again. One that is more than a day ahead came from a clock that was wrong, and does not count. It is kept
    beside Dagster's cursor too, which Dagster forgets when it resumes a tick that was interrupted.
    """

    @property
    def requires_cursor(self) -> bool:
        return True

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        since, now = context.previous_evaluation_time, context.evaluation_time
        kept, name = context.asset_graph_view.instance.daemon_cursor_storage, _cursor_name(context)
        cursor = context.cursor or kept.get_cursor_values({name}).get(name)
        latest = datetime.fromisoformat(cursor) if cursor else None
        if latest and latest < now + timedelta(days=1):
            since = max(since or latest, latest)
        found = self.found(context, since)
        cursor = max(since or now, now).isoformat()
        kept.set_cursor_values({name: cursor})
        return dg.AutomationResult(context, found, cursor=cursor)

    @property
    def description(self) -> str:
        return "The tenant is active and its daily cycle has started since the last evaluation"

    def chosen(self, platform: Platform, keys: Set[str], since: datetime, now: datetime) -> Iterator[str]:
        started = {key for key in keys if since < _cycle_start(platform, key, now)}
        # The source is asked only when a cycle starts, not at every evaluation.
        return iter(started and started & set(platform.source.active_tenants()))


def _cursor_name(context: dg.AutomationContext[dg.AssetKey]) -> str:
    return f"fraud_assets/cycle_starts/{context.key.to_user_string()}"


class RetrainIsDue(TenantCondition):
    """True for a tenant whose champion is missing, damaged, or as old as the freshness policy allows."""

    @property
    def description(self) -> str:
        return "No champion, a damaged one, or one that is as old as active_model's freshness policy allows"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        # What is due does not hang on what was asked before, and so not on a cursor that may be forgotten.
        return dg.AutomationResult(context, self.found(context, context.evaluation_time))

    def chosen(self, platform: Platform, keys: Set[str], since: datetime, now: datetime) -> Iterator[str]:  # noqa: ARG002
        champions, damaged = platform.ledger.champions(), platform.ledger.damaged()
        return (key for key in keys if key in damaged or _is_old(platform, key, champions.get(key), now))


class ChampionFoundDamaged(TenantCondition):
    """True once for a tenant whose champion's file a cycle found damaged."""

    @property
    def description(self) -> str:
        return "The tenant's champion was found damaged since the last evaluation"

    def chosen(self, platform: Platform, keys: Set[str], since: datetime, now: datetime) -> Iterator[str]:
        found = platform.ledger.damaged().items()
        return (key for key, entry in found if key in keys and since <= entry.decided_at < now)


def _cycle_start(platform: Platform, tenant: str, now: datetime) -> datetime:
    """A tenant whose settings cannot be read starts when the others do: its own run shows the error."""
    defaults = {"default": platform.overrides.get("default", {})}
    for overrides in (platform.overrides, defaults):
        with suppress(InvalidSettings):
            return for_tenant(overrides, tenant).latest_cycle_start(now)
    return Settings().latest_cycle_start(now)


def _is_old(platform: Platform, tenant: str, champion: Entry | None, now: datetime) -> bool:
    """Also without a champion. A tenant whose settings cannot be read is due: its own run shows the error."""
    try:
        limit = platform.settings(tenant).retrain_limit(fail_window())
    except InvalidSettings:
        return True
    start = _cycle_start(platform, tenant, now)
    return retrain(champion and champion_of(champion), None, start, limit).is_due


def automate(assets: Sequence[dg.AssetsDefinition], open_platform: Opener) -> Sequence[dg.AssetsDefinition]:
    """The assets with the nightly conditions: profiles every night, the others when a retrain is due.

    Whether it is due is asked once, for the dataset; what stands on it follows in the same run. A champion
    that the profiles' run finds damaged is trained again in the same night.
    """
    starts = CycleStarts(open_platform)
    follows = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    conditions = {
        "behavioural_profiles": starts,
        "training_dataset": (starts & RetrainIsDue(open_platform)) | ChampionFoundDamaged(open_platform),
        "trained_model": follows,
        "active_model": follows,
    }

    def conditioned(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(automation_condition=conditions[spec.key.to_user_string()])

    return [asset.map_asset_specs(conditioned) for asset in assets]


# It is in beta, and what `RetrainIsDue` needs; the pin of Dagster's minor version keeps it as tested.
warnings.filterwarnings("ignore", message=".*`use_user_code_server`.*", category=dg.BetaWarning)

nightly_cycle = dg.AutomationConditionSensorDefinition(
    "nightly_cycle",
    target=dg.AssetSelection.all(),
    # Conditions of our own are evaluated in the code server alone; elsewhere they are dropped in silence.
    use_user_code_server=True,
    # One run a tenant, not one backfill of all.
    emit_backfills=False,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts each active tenant's cycle at its 02:00, and its retrain when the champion is due.",
)


def tenant_directory(open_platform: Opener) -> dg.SensorDefinition:
    """The sensor that keeps the tenants of Dagster in step with the source's, and reports stale champions."""

    @dg.sensor(
        name="tenant_directory",
        target=dg.AssetSelection.checks(CHAMPION_IS_FRESH),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Adds a partition for each new active tenant, logs the rows of the source that can be no tenant, "
            "and runs the check champion_is_fresh when a tenant's champion has turned stale and was not "
            "retrained within 3 hours. A suspended tenant keeps its partition and its history, and is no "
            "longer run."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        platform = open_platform()
        found = platform.source.tenants()
        active, left_out = found.active, found.left_out
        if left_out and left_out != context.cursor:
            context.log.warning("%s", left_out)
        known = set(context.instance.get_dynamic_partitions(str(tenants.name)))
        new = [tenant for tenant in active if tenant not in known]
        if new:
            context.log.info("New tenants: %s", ", ".join(new))
        return dg.SensorResult(
            # What was said last, so that it is not said every minute.
            cursor=left_out or "",
            dynamic_partitions_requests=[tenants.build_add_request(new)] if new else [],
            run_requests=[
                # A run, because an evaluation without one can be stored only once a tenant. Its key names
                # the champion, so that each is reported once.
                dg.RunRequest(
                    run_key=f"stale/{champion.tenant}/{champion.cycle_started_at.isoformat()}",
                    # `partition_key` is refused: a job of checks alone has no partitions definition.
                    tags={"dagster/partition": champion.tenant},
                    asset_check_keys=[CHAMPION_IS_FRESH],
                )
                for champion in _stale(platform, known.intersection(active), context.log)
            ],
        )

    return sensor


def _stale(platform: Platform, active: Set[str], log: logging.Logger) -> Iterator[Champion]:
    """The champions of `active` tenants that stayed too old; tenants with unreadable settings are logged."""
    for tenant, entry in platform.ledger.champions().items():
        if tenant not in active:
            continue
        try:
            limit = platform.settings(tenant).retrain_limit(fail_window()) + PATIENCE
        except FraudAssetsError as error:
            log.error("%s", error)
        else:
            if platform.now() - entry.cycle_started_at >= limit:
                yield champion_of(entry)


class _StageLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"  {printable(record.__dict__['dagster_meta']['orig_message'])}"


def _said_by_a_stage(record: logging.LogRecord) -> bool:
    """A stage's line starts with its name; Dagster's own do not."""
    said = record.__dict__["dagster_meta"]
    is_event = said["dagster_event"] is not None
    return not is_event and said["orig_message"].startswith(said["step_key"] or " ")


def _progress(_: dg.InitLoggerContext) -> logging.Logger:
    handler = logging.StreamHandler()
    handler.setFormatter(_StageLines())
    handler.addFilter(_said_by_a_stage)
    logger = logging.Logger("fraud_assets", level=logging.INFO)
    logger.addHandler(handler)
    return logger


progress_logger = dg.LoggerDefinition(
    _progress, description="What the stages say, a line each, without Dagster's own events; for a terminal."
)
