"""The candidate that a tenant's dataset trains, and the one model that is active."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

# The type that `FreshnessPolicy.time_window` returns has no public name.
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from fraud_assets import cycle
from fraud_assets.compute.activation import Verdict
from fraud_assets.compute.evaluation import PUBLISHED
from fraud_assets.orchestration.assets import decisions
from fraud_assets.orchestration.partitions import tenants
from fraud_assets.orchestration.resources import tenant_stage
from fraud_assets.storage.ledger import Entry
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.registry import Candidate, version_link

Events = Iterator[dg.MaterializeResult | dg.AssetObservation]


@dg.asset(
    partitions_def=tenants,
    group_name="attendance_fraud",
    kinds={"xgboost", "mlflow"},
    deps=["training_dataset"],
    output_required=False,
)
def trained_model(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Events:
    """The candidate: an XGBoost model of the training dataset, registered in MLflow as `challenger`.

    The latest 20% of the events by time are held out and measured. The same dataset gives the same model to
    the bit, and is not registered twice. With fewer than 100 usable records, or too few of either class, no
    model is trained, however this is started: nothing is materialized, and the reason stands on
    `active_model`.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        result = cycle.train(platform, tenant, context.run.run_id)
        if isinstance(result, Entry):
            context.log.warning(f"trained_model         {result.sentence}")
            yield decisions.observed(tenant, _decided(platform, tenant, result))
            return
        link = f"{platform.registry_pages}{platform.registry.run_link(result.run_id)}"
    context.log.info(f"trained_model         v{result.version}, PR-AUC {result.metrics.pr_auc:.3f}")
    yield dg.MaterializeResult(metadata=_described(tenant, result, link))


@dg.asset(
    partitions_def=tenants,
    group_name="attendance_fraud",
    kinds={"mlflow"},
    deps=["trained_model"],
    output_required=False,
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=7)),
)
def active_model(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Events:
    """The tenant's champion: the one model that anything downstream may load.

    A candidate becomes champion if, on its holdout, PR-AUC is at least 0.70, precision at 80% recall at least
    0.50, the false-positive rate there at most 10%, it is not worse than the champion on the same rows, beats
    every simpler model, fails in no slice, and there is enough fraud that it is not luck.
    A materialization is an activation. A rejected candidate leaves the champion where it was: the decision
    and its reasons show as an observation. A champion older than the freshness policy is retrained.
    """
    tenant = context.partition_key
    with tenant_stage(platform.retry_wait_seconds):
        entry = cycle.decide(platform, tenant, context.run.run_id)
        metadata = _decided(platform, tenant, entry)
    context.log.info(f"active_model          {entry.sentence}")
    if entry.verdict == Verdict.ACTIVATE:
        yield dg.MaterializeResult(metadata=metadata)
    else:
        yield decisions.observed(tenant, metadata)


def fail_window() -> timedelta:
    """The age at which a champion is retrained, as the freshness policy of `active_model` says."""
    policy = active_model.get_asset_spec().freshness_policy
    if not isinstance(policy, TimeWindowFreshnessPolicy):
        raise TypeError(f"expected a time-window freshness policy on active_model, got {policy!r}")
    return policy.fail_window.to_timedelta()


def _decided(platform: Platform, tenant: str, entry: Entry) -> decisions.Metadata:
    champion = platform.champion(tenant)
    metadata = decisions.shown(tenant, entry.sentence, entry, champion, entry.cycle_started_at)
    if entry.model_version is not None:
        page = f"{platform.registry_pages}{version_link(tenant, entry.model_version)}"
        metadata |= {"candidate": f"v{entry.model_version}", "mlflow": dg.MetadataValue.url(page)}
    return metadata | {"champion": f"v{champion.version}" if champion else "none"}


def _described(tenant: str, candidate: Candidate, link: str) -> decisions.Metadata:
    numbers = decisions.numbers(candidate.metrics.as_dict(), PUBLISHED)
    return {
        "tenant": tenant,
        "version": f"v{candidate.version}",
        **numbers,
        "model_digest": candidate.digest,
        "dataset_digest": candidate.tags["dataset_digest"],
        "mlflow": dg.MetadataValue.url(link),
    }
