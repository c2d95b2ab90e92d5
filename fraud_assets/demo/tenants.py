"""The demo tenants: where they work, how large they are and what each one shows. No randomness."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HISTORY_DAYS: Final = 300
"""180 days of dataset, 90 days of profile history before it, and a margin."""

DRIFT_DAYS: Final = 62
"""How long ago the frauds of a drifting tenant changed: about when the holdout begins."""

EVEN_MIX: Final = {
    "buddy_punching": 0.32,
    "ghost_shift": 0.18,
    "gps_spoofing": 0.18,
    "padding": 0.22,
    "impossible_travel": 0.10,
}
"""Share of each typology among the frauds."""


@dataclass(frozen=True)
class City:
    """Where sites stand. `code` begins the ids of its sites."""

    code: str
    name: str
    tz: str
    country: str
    latitude: float
    longitude: float


@dataclass(frozen=True)
class DemoTenant:
    """A security company of the demo.

    `fraud_share` is the share of fraud among its events, `mix` that of each typology among the frauds;
    `late_mix` replaces it for the last `DRIFT_DAYS`. Nearly all rows of `corrupt_guards` guards are bad.
    The head office is in the first city.
    """

    id: str
    name: str
    shows: str
    cities: tuple[City, ...]
    guards: int
    fraud_share: float
    days: int = HISTORY_DAYS
    is_active: bool = True
    mix: Mapping[str, float] = field(default_factory=lambda: EVEN_MIX)
    late_mix: Mapping[str, float] | None = None
    dirty_share: float = 0.002
    corrupt_guards: int = 0


TENANTS: Final = (
    DemoTenant(
        id="alcazar-security",
        name="Alcazar Security",
        shows="a medium company in two time zones, with frauds that a model can learn",
        cities=(
            City("mad", "Madrid", "Europe/Madrid", "ES", 40.4168, -3.7038),
            City("svq", "Sevilla", "Europe/Madrid", "ES", 37.3891, -5.9845),
            City("lpa", "Las Palmas", "Atlantic/Canary", "ES", 28.1235, -15.4363),
        ),
        guards=96,
        fraud_share=0.029,
    ),
    DemoTenant(
        id="bluewater-guards",
        name="Bluewater Guards",
        shows="a medium company in zones with and without summer time, with frauds that a model can learn",
        cities=(
            City("nyc", "New York", "America/New_York", "US", 40.7128, -74.0060),
            City("chi", "Chicago", "America/Chicago", "US", 41.8781, -87.6298),
            City("phx", "Phoenix", "America/Phoenix", "US", 33.4484, -112.0740),
        ),
        guards=75,
        fraud_share=0.029,
    ),
    DemoTenant(
        id="citadel-large",
        name="Citadel Large",
        shows="more than 100,000 events in 180 days, in several countries",
        cities=(
            City("mex", "Mexico City", "America/Mexico_City", "MX", 19.4326, -99.1332),
            City("mty", "Monterrey", "America/Monterrey", "MX", 25.6866, -100.3161),
            City("bog", "Bogota", "America/Bogota", "CO", 4.7110, -74.0721),
            City("lim", "Lima", "America/Lima", "PE", -12.0464, -77.0428),
        ),
        guards=950,
        fraud_share=0.012,
    ),
    DemoTenant(
        id="drift-patrol",
        name="Drift Patrol",
        shows="frauds that changed two months ago: the candidate is rejected",
        cities=(
            City("lon", "London", "Europe/London", "GB", 51.5072, -0.1276),
            City("dub", "Dublin", "Europe/Dublin", "IE", 53.3498, -6.2603),
        ),
        guards=45,
        fraud_share=0.029,
        mix={"ghost_shift": 0.5, "padding": 0.5},
        late_mix={"buddy_punching": 0.6, "gps_spoofing": 0.25, "impossible_travel": 0.15},
    ),
    DemoTenant(
        id="ember-watch",
        name="Ember Watch",
        shows="a new company with fewer than 100 usable records: no training yet",
        cities=(City("lis", "Lisbon", "Europe/Lisbon", "PT", 38.7223, -9.1393),),
        guards=8,
        fraud_share=0.02,
        days=44,
    ),
    DemoTenant(
        id="fairplay-guarding",
        name="Fairplay Guarding",
        shows="no confirmed fraud: records of one class only, no training",
        cities=(
            City("ams", "Amsterdam", "Europe/Amsterdam", "NL", 52.3676, 4.9041),
            City("rtm", "Rotterdam", "Europe/Amsterdam", "NL", 51.9244, 4.4777),
        ),
        guards=22,
        fraud_share=0.0,
    ),
    DemoTenant(
        id="garrison-paused",
        name="Garrison (paused)",
        shows="a suspended company: nothing is done for it",
        cities=(City("jnb", "Johannesburg", "Africa/Johannesburg", "ZA", -26.2041, 28.0473),),
        guards=6,
        fraud_share=0.02,
        is_active=False,
    ),
    DemoTenant(
        id="harbour-corrupt",
        name="Harbour Corrupt",
        shows="every kind of bad row; three guards are named, the others carry a model",
        cities=(
            City("syd", "Sydney", "Australia/Sydney", "AU", -33.8688, 151.2093),
            City("bne", "Brisbane", "Australia/Brisbane", "AU", -27.4698, 153.0251),
        ),
        guards=92,
        fraud_share=0.029,
        dirty_share=0.005,
        corrupt_guards=3,
    ),
)
