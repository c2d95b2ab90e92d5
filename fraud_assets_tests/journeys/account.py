"""What a journey that failed tells: ticks and runs of its installation, what its processes said. No tests."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import dagster as dg

LINES = 500
"""Of a process's output, the last ones."""

OF_RUNS = {
    *(dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_FAILURE),
    *(dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELING, dg.DagsterEventType.RUN_CANCELED),
}


def of_runs(environment: Mapping[str, str]) -> str:
    """Each tick and run that Dagster knows, newest first: its status, its tags and what became of it."""
    folder = environment["DAGSTER_HOME"]
    # Whatever is wrong with the instance must not hide why the journey failed.
    try:
        with patch.dict(os.environ, environment), dg.DagsterInstance.from_config(folder) as instance:
            told = [line for run in instance.get_runs() for line in _of_run(instance, run)]
            return "\n".join([*_of_ticks(instance), *told])
    except Exception as error:  # noqa: BLE001
        return f"Dagster's instance does not tell: {error!r}"


def _of_ticks(instance: dg.DagsterInstance) -> Iterator[str]:
    for state in instance.all_instigator_state():
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=30):
            asked, made = len(tick.run_requests or []), len(tick.run_ids)
            name = f"{state.instigator_name} {tick.status.value}"
            yield f"tick {tick.timestamp:.2f} {name} {asked} asked, {made} made"


def _of_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[str]:
    yield f"run {run.run_id} {run.status.value} {dict(sorted(run.tags.items()))}"
    for entry in instance.all_logs(run.run_id, of_type=OF_RUNS):
        event = entry.get_dagster_event()
        yield f"  {entry.timestamp:.2f} {event.event_type_value}: {entry.message or event.message}"
        error = getattr(event.event_specific_data, "error", None)
        yield from [f"  {error.to_string()}"] if error else []


def of_process(command: object, log: Path) -> str:
    """The end of its output."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([f"--- {command}: the last of {len(lines)} lines", *lines[-LINES:]])
