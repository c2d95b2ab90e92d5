"""The rules, each declared once, and every value that may differ between tenants. No disk, no clock.

The weekly retrain is the one rule that stands elsewhere: it is the freshness policy of
`active_model`, and `retrain_after` only overrides it for a tenant.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fraud_assets.domain.errors import InvalidSettings


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"expected an IANA time zone such as 'Europe/Madrid', got {name!r}") from error
    return name


Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=1, le=3650)]


class Settings(BaseModel):
    """One tenant's rules. The defaults are the platform's."""

    # A default of another type than its field would not be the same once it was written and read.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    cycle_at: time = Field(default=time(2, 0), description="Local time of the daily cycle.")
    cycle_timezone: Annotated[str, AfterValidator(_known_zone)] = Field(
        default="UTC", description="IANA time zone in which `cycle_at` is read."
    )
    retrain_after: timedelta | None = Field(
        default=None,
        description="Age of the champion from which it is retrained; None: the freshness policy.",
    )

    profile_days: Days = Field(default=90, description="History behind a profile, in days.")
    profile_batch_size: int = Field(default=100, ge=1, description="Guards profiled in one batch.")
    profile_minimum_observations: int = Field(
        default=10, ge=1, description="Below it a guard has no profile."
    )
    profile_sufficient_observations: int = Field(
        default=30, ge=1, description="From it a profile is sufficient."
    )
    profile_corrupt_share: Share = Field(
        default=0.5, description="Share of a guard's rows set aside from which the guard cannot be profiled."
    )

    set_aside_jump: Share = Field(
        default=0.05,
        description="Rise of the share of rows set aside, of all or of the last 7 days, at most.",
    )

    dataset_days: Days = Field(default=180, description="Events in the training dataset, in days.")
    maturity_days: Days = Field(default=30, description="Days after which an event's outcome has arrived.")
    label_delay_quantile: float = Field(
        default=0.95, gt=0, le=1, description="Share of the outcomes to come that the label delay waits for."
    )
    longest_label_delay_days: Days = Field(
        default=90, description="Outcomes that take longer are not waited for, in days."
    )
    minimum_delay_outcomes: int = Field(
        default=30,
        ge=1,
        description="Fewer outcomes of events older than the longest delay: `maturity_days` is the delay.",
    )
    minimum_records: int = Field(default=100, ge=1, description="Fewer usable records: no training.")
    minimum_per_class: int = Field(
        default=10, ge=1, description="Fewer records of either class: no training."
    )

    holdout_share: float = Field(
        default=0.2, gt=0, lt=1, description="Latest share of events held out, by time."
    )
    validation_share: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Latest share of the training part on which parameters are searched, by time.",
    )
    minimum_validation_fraud: int = Field(
        default=10, ge=1, description="Fewer records of either class to search on: no search."
    )
    search_seconds: float = Field(
        default=60,
        ge=0,
        description="CPU-seconds that a search may take. They become a number of trials by the rows, not by "
        "the clock; 0: one trial.",
    )
    minimum_holdout_fraud: int = Field(
        default=5, ge=1, description="Fewer frauds in the holdout: the evidence is insufficient."
    )
    minimum_pr_auc: Share = Field(
        default=0.70, description="Area under the precision-recall curve, at least."
    )
    target_recall: Share = Field(default=0.80, description="Recall at which precision is judged.")
    minimum_precision_at_target_recall: Share = Field(default=0.50, description="Precision there, at least.")
    maximum_false_positive_rate: Share = Field(default=0.10, description="At the chosen threshold, at most.")

    bootstrap_resamples: int = Field(
        default=1000, ge=100, description="Resamples of the guards behind an interval of 5% to 95%."
    )
    pr_auc_low_margin: Share = Field(
        default=0.20,
        description="How far PR-AUC's interval may reach below `minimum_pr_auc`; further: insufficient "
        "evidence.",
    )
    maximum_luck: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="Share of random rankings that may reach the candidate's PR-AUC; more: insufficient "
        "evidence.",
    )
    rival_confidence: Share = Field(
        default=0.90,
        description="Share of resamples in which the candidate must be better than each simpler model.",
    )
    rival_records: int = Field(
        default=200_000,
        ge=2,
        description="Training records that the logistic regression is fitted on, at most; more: a sample.",
    )
    slice_minimum_records: int = Field(
        default=50, ge=1, description="Fewer held-out records in a slice: it is not reported."
    )
    slice_minimum_fraud: int = Field(
        default=10, ge=1, description="Fewer held-out frauds in a slice: it cannot block."
    )
    slice_collapse_share: Share = Field(
        default=0.5, description="Recall in a slice, as a share of the whole's: surely less blocks."
    )
    slice_maximum_loss: Share = Field(
        default=0.05, description="PR-AUC lost against the champion in a slice: surely more blocks."
    )
    leak_pr_auc: Share = Field(
        default=0.95,
        description="One feature's PR-AUC that is too good to be true, as a share of the way from the base "
        "rate to 1.",
    )
    desk_guards_per_day: int = Field(
        default=5, ge=1, description="Guards that the tenant's desk can review in a day."
    )
    missed_fraud_cost: float = Field(
        default=20.0, ge=0, description="Cost of a fraud that is not found, in the unit of a false alarm."
    )
    false_alarm_cost: float = Field(default=1.0, ge=0, description="Cost of a review that finds nothing.")

    seed: int = Field(default=7, ge=0, description="Seed of the training.")
    threads: int = Field(default=1, ge=1, description="Threads of one training.")

    def retrain_limit(self, policy: timedelta) -> timedelta:
        """The champion's age from which it is retrained: the tenant's own, or the freshness policy's."""
        return self.retrain_after or policy

    def latest_cycle_start(self, now: datetime) -> datetime:
        """The newest `cycle_at` at or before `now` (aware), in UTC.

        A local time that a clock change skips is read with the offset before the change (PEP 495);
        one that happens twice means its first time.
        """
        zone = ZoneInfo(self.cycle_timezone)
        today = now.astimezone(zone).date()
        starts = (
            datetime.combine(today - timedelta(days=back), self.cycle_at, zone).astimezone(UTC)
            for back in (0, 1)
        )
        return next(start for start in starts if start <= now)


class _Overrides(BaseModel):
    model_config = ConfigDict(extra="forbid")

    default: dict[str, Any] = {}
    tenants: dict[str, dict[str, Any]] = {}


def for_tenant(overrides: Mapping[str, Any], tenant: str) -> Settings:
    """The tenant's rules: the platform's, under the section `default`, under `tenants.<tenant>`.

    Raises InvalidSettings that names the tenant, the value and what was expected.
    """
    try:
        given = _Overrides.model_validate(overrides)
        return Settings.model_validate(given.default | given.tenants.get(tenant, {}))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, got {problem['input']!r:.80}"
            for problem in error.errors()
        )
        raise InvalidSettings(f"settings of tenant {tenant}: {problems}") from error
