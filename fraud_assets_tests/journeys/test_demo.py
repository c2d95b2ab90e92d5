"""The first command of the README, twice."""

from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets.demo.tenants import TENANTS
from fraud_assets.storage.ledger import Entry
from fraud_assets_tests.journeys.installation import Installation

KEYS = ["tenant", "events", "records", "fraud", "decision", "model_version", "pr_auc", "activated_at"]
ACTIVE = {"alcazar-security": 30, "ember-watch": 8}


def decisions(installation: Installation) -> list[Entry]:
    return [entry for tenant in ACTIVE for entry in installation.platform.ledger.history(tenant)]


def model_versions(installation: Installation) -> int:
    return len(MlflowClient(f"sqlite:///{installation.home}/mlflow.db").search_model_versions())


def after(said: str, tenant: str) -> str:
    """What was said from the tenant's line to the next tenant's."""
    return said.partition(f"] {tenant}\n")[2].partition("\n[")[0]


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_the_demo_decides_for_each_tenant_and_a_second_run_does_nothing_twice(
    installation: Installation,
) -> None:
    installation.create_company(ACTIVE)
    installation.cycle_at(datetime.now(UTC) - timedelta(hours=1))

    rows, said = installation.rows("demo")
    assert [row["tenant"] for row in rows] == [tenant.id for tenant in TENANTS]
    assert all(list(row) == KEYS for row in rows)
    decision = {row["tenant"]: str(row["decision"]) for row in rows}
    assert decision["alcazar-security"].startswith("Activated: "), said
    assert decision["ember-watch"].startswith("Not trained: ")
    assert {decision[tenant.id] for tenant in TENANTS if tenant.id not in ACTIVE} == {"Suspended: not run."}
    assert all(f"  {stage} " in after(said, "alcazar-security") for stage in CYCLE_STAGES)
    assert all(f"  {stage} " in after(said, "ember-watch") for stage in CYCLE_STAGES[:3])
    assert "garrison-paused" not in said
    assert list(installation.strays()) == []

    kept, versions = decisions(installation), model_versions(installation)
    assert (len(kept), versions) == (2, 1)
    again, said = installation.rows("demo")
    assert again == rows
    assert all(
        after(said, tenant).startswith("  nothing to do: decided for the cycle of") for tenant in ACTIVE
    )
    assert (decisions(installation), model_versions(installation)) == (kept, versions)
    assert installation.rows("status")[0] == rows
    assert list(installation.strays()) == []

    [active], _ = installation.rows("history", "alcazar-security", "--at", f"{datetime.now(UTC).isoformat()}")
    assert (active["model_version"], active["sentence"]) == (1, decision["alcazar-security"])
    made_again = installation.run("rebuild", "alcazar-security", "1")
    assert (made_again.returncode, made_again.stderr) == (0, "")
    assert "identical to the bit: SHA-256" in made_again.stdout
    assert str(active["model_digest"]) in made_again.stdout
    refused = installation.run("rollback", "alcazar-security", "2", "--reason", "it is worse")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "that was active before (v1), got v2" in refused.stderr
    assert list(installation.strays()) == []
