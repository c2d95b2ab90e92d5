"""The model card: one page of Markdown about a model, for whoever finds it in the registry.

Facts in, text out. Nothing is measured or looked up here. Text that people wrote is shown as it is and
never obeyed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

LONGEST: Final = 5000
"""Characters that a description in the registry may have on every database (MLflow: VARCHAR(5000))."""

_MEASURES: Final = {
    "pr_auc": "PR-AUC (average precision)",
    "precision_at_80_recall": "precision at the recall asked for",
    "recall": "recall at the threshold",
    "false_positive_rate": "false-positive rate at the threshold",
    "threshold": "threshold",
    "roc_auc": "ROC-AUC",
    "precision_at_desk": "fraud among the guards that the desk can review",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
    "champion_pr_auc": "PR-AUC of the champion on the same events",
    "base_rate": "base rate of the holdout",
    "holdout_records": "events held out",
    "holdout_fraud": "frauds held out",
}
_COUNTS: Final = ("holdout_records", "holdout_fraud")
_LOW, _HIGH = "_low", "_high"

# What opens markup, a link or an entity; a point before a letter may make an address out of words.
_MARKUP: Final = re.compile(r"[\\`*_{}\[\]<>()#|~!&@:=$^\"'/+]|\.(?=[^\W\d_])|-(?=-)|^[-\d]")
_HALF_AN_ENTITY: Final = re.compile(r"&[^;]*$")


@dataclass(frozen=True)
class Facts:
    """What a card says.

    decision        the verdict with its reasons, one sentence; people may have written parts of it
    metrics         on the holdout, by published name; an interval is `<name>_low` and `<name>_high`
    records, fraud  of the training dataset, whose window is [window_start, as_of)
    dataset_version, dataset_digest
                    the table version of the training dataset, and its SHA-256
    """

    tenant: str
    version: int
    decision: str
    metrics: Mapping[str, float]
    records: int
    fraud: int
    window_start: datetime | None
    as_of: datetime | None
    dataset_version: int | None
    dataset_digest: str | None


def written(facts: Facts) -> str:
    """The card as Markdown, of at most LONGEST characters."""
    rest = [
        _PURPOSE,
        "\n".join(["## The data", "", *_data(facts)]),
        "\n".join(["## On the latest events, which were held out", "", *_measured(facts.metrics)]),
        "\n".join(["## Limits", "", *_limits(facts.metrics)]),
        "\n".join(["## What you can do", "", *_actions(facts.tenant, facts.version)]),
    ]
    head = f"# Attendance-fraud model of {facts.tenant}, version {facts.version}\n\n**Decision.** "
    room = LONGEST - len(head) - sum(len(section) + 2 for section in rest)
    return "\n\n".join([head + _clipped(escaped(facts.decision), room), *rest])


def escaped(text: str) -> str:
    """`text` on one line of Markdown, so that it reads as it was written and does nothing."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return _MARKUP.sub(lambda found: f"&#{ord(found.group())};", line)


def _clipped(shown: str, room: int) -> str:
    """At most `room` characters, without half an entity at the end."""
    if len(shown) <= room:
        return shown
    return f"{_HALF_AN_ENTITY.sub('', shown[: room - 4])} ..."


_PURPOSE: Final = """## What it is for

It ranks this company's punches by suspicion, so that people look at the most suspicious ones first.

## What it is not for

- A score is a reason to look. It is no finding about a guard, and no ground for a measure by itself.
- It knows this company alone; its scores mean nothing for another one."""


def _data(facts: Facts) -> Iterator[str]:
    share = f", {facts.fraud / facts.records:.2%} of all" if facts.records else ""
    yield f"- {facts.records:,} events, {facts.fraud:,} of them fraud{share}."
    if facts.window_start and facts.as_of:
        window = f"{facts.window_start:%Y-%m-%d %H:%M} to {facts.as_of:%Y-%m-%d %H:%M} UTC"
        yield f"- Punched in from {window}; as it was known at the end."
    if facts.dataset_version is not None and facts.dataset_digest:
        yield (
            f"- Version {facts.dataset_version} of the table `training_dataset`, SHA-256 "
            f"`{facts.dataset_digest}`; `fraud-assets rebuild {facts.tenant} {facts.version}` reads it."
        )


def _measured(metrics: Mapping[str, float]) -> Iterator[str]:
    yield "| measure | value | 5% to 95% |"
    yield "|---|---|---|"
    for name, words in _MEASURES.items():
        if name in metrics:
            value = f"{metrics[name]:,.0f}" if name in _COUNTS else f"{metrics[name]:.3f}"
            yield f"| {words} | {value} | {_interval(metrics, name)} |"


def _interval(metrics: Mapping[str, float], name: str) -> str:
    low, high = metrics.get(name + _LOW), metrics.get(name + _HIGH)
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _limits(metrics: Mapping[str, float]) -> Iterator[str]:
    if "holdout_fraud" in metrics:
        judged = f"Judged by {metrics['holdout_fraud']:,.0f} frauds"
        yield f"- {judged}; with few, the same model may seem better or worse by luck."
    yield "- An old event that nobody reviewed counts as legitimate: fraud never found is not learned."
    yield "- Measured on the past. A new way of cheating is learned after reviewers have found it."


def _actions(tenant: str, version: int) -> Iterator[str]:
    yield f"- Why is which model active: `fraud-assets history {tenant}`"
    yield f'- Go back to an earlier version: `fraud-assets rollback {tenant} EARLIER --reason "..."`'
    yield f"- Make this very model again: `fraud-assets rebuild {tenant} {version}`"
