"""Dagster wrappers round storage: how a run opens the platform, and how its errors look in Dagster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from fraud_assets.domain.errors import (
    FraudAssetsError,
    LedgerUnreachable,
    RegistryUnreachable,
    SourceUnreachable,
)
from fraud_assets.storage.platform import Platform

RETRIES = 2


def platform_resource(open_platform: Callable[[], Platform]) -> dg.ResourceDefinition:
    """Hands the plain `Platform` to the assets; code under them never meets the wrapper."""

    def opened(_: dg.InitResourceContext) -> Platform:
        return open_platform()

    return dg.ResourceDefinition(
        opened, description="The installation: source, tables, model registry, ledger and settings."
    )


@contextmanager
def tenant_stage(retry_wait_seconds: float) -> Iterator[None]:
    """A server that does not answer is worth another try; any other known error ends the tenant's run.

    Unknown errors pass as they are, with their stack.
    """
    try:
        yield
    except (SourceUnreachable, RegistryUnreachable, LedgerUnreachable) as error:
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=retry_wait_seconds) from error
    except FraudAssetsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
