"""The night without Dagster: a plain loop over the tenants, in one process. `benchmarks.night` starts it.

Prints its CPU-seconds as JSON, by what they went into. A tenant that fails ends it.
"""

import json
from datetime import timedelta
from typing import Final

from benchmarks.meter import Meter, watch
from fraud_assets import cycle, mirror
from fraud_assets.definitions import open_platform
from fraud_assets.storage.ledger import Entry

WEEK: Final = timedelta(days=7)


def main() -> None:
    """Every tenant's night, one after the other."""
    meter = Meter("start-up")
    platform = watch(meter, open_platform())
    meter.turn_to("the loop itself")
    for tenant in platform.source.active_tenants():
        made = cycle.refresh_profiles(platform, tenant)
        mirror.champion(platform, tenant)
        damage = mirror.damage(platform, tenant)
        if cycle.retrain_due(platform, tenant, made.as_of, WEEK, damage).is_due:
            cycle.assemble_dataset(platform, tenant)
            if not isinstance(cycle.train(platform, tenant, None), Entry):
                cycle.decide(platform, tenant, None)
    print(json.dumps(meter.spent))


if __name__ == "__main__":
    main()
