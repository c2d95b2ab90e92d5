"""The front door: everything that Dagster loads, assembled once, with overrides for tests."""

import os
from collections.abc import Callable

import dagster as dg

from fraud_assets.orchestration import automation, checks, monitoring, retention, stewardship
from fraud_assets.orchestration.assets import dataset, model, profiles, sources
from fraud_assets.orchestration.resources import platform_resource
from fraud_assets.storage.platform import Platform


def open_platform() -> Platform:
    """The installation that the environment describes."""
    return Platform.from_environment(os.environ)


def build_definitions(open_platform: Callable[[], Platform] = open_platform) -> dg.Definitions:
    """All assets, checks, jobs and sensors over the platform that `open_platform` opens.

    It is opened by each run, sensor tick and automation tick, never at import.
    """
    chain = [
        profiles.behavioural_profiles,
        dataset.training_dataset,
        model.trained_model,
        model.active_model,
    ]
    return dg.Definitions(
        assets=[sources.operational_database, *automation.automate(chain, open_platform)],
        asset_checks=[
            checks.source_rows_are_sound,
            checks.enough_records,
            checks.dataset_has_no_leak,
            checks.champion_is_fresh,
        ],
        jobs=[automation.tenant_cycle, stewardship.roll_back_model, retention.prune_runs],
        schedules=[retention.daily],
        sensors=[
            automation.nightly_cycle,
            automation.tenant_directory(open_platform),
            monitoring.lost_runs,
        ],
        resources={"platform": platform_resource(open_platform)},
        executor=dg.in_process_executor,
        loggers={"console": dg.colored_console_logger, "progress": automation.progress_logger},
    )


defs = build_definitions()
