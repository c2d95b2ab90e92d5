"""Both user interfaces, from the start to Ctrl-C."""

import signal
import socket
from urllib.request import urlopen

import pytest

from fraud_assets.cycle import CYCLE_STAGES
from fraud_assets_tests.journeys import graphql
from fraud_assets_tests.journeys.installation import Installation, free_port

SHOWN = """
query Shown($repository: RepositorySelector!) {
  assetNodes { assetKey { path } isExecutable }
  repositoryOrError(repositorySelector: $repository) {
    ... on Repository { sensors { name sensorState { status } } }
  }
}
"""


@pytest.mark.journey
def test_both_user_interfaces_answer_this_machine_alone_and_end_with_ctrl_c(
    installation: Installation,
) -> None:
    installation.create_company({"ember-watch": 8})
    process, dagster, mlflow = installation.start_ui()

    shown = graphql.ask(dagster, SHOWN, repository=graphql.REPOSITORY)
    assets = {node["assetKey"]["path"][0] for node in shown["assetNodes"] if node["isExecutable"]}
    assert assets == set(CYCLE_STAGES)
    sensors = {each["name"]: each["sensorState"]["status"] for each in shown["repositoryOrError"]["sensors"]}
    assert sensors == dict.fromkeys(["lost_runs", "nightly_cycle", "tenant_directory"], "RUNNING")
    with urlopen(f"http://127.0.0.1:{mlflow}/health", timeout=60) as answer:
        assert answer.status == 200
    assert installation.listening() == {("127.0.0.1", dagster), ("127.0.0.1", mlflow)}

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0, installation.said()
    installation.wait_for("no process left", lambda: not installation.processes(), seconds=10)
    assert "Traceback" not in installation.said()


@pytest.mark.journey
@pytest.mark.parametrize(("name", "option"), [("Dagster", "--dagster-port"), ("MLflow", "--mlflow-port")])
def test_a_port_that_is_taken_is_named_and_nothing_is_started(
    installation: Installation, name: str, option: str
) -> None:
    ports = {"--dagster-port": free_port(), "--mlflow-port": free_port()}
    with socket.create_server(("127.0.0.1", ports[option])):
        done = installation.run("ui", *(str(word) for pair in ports.items() for word in pair))
    assert done.returncode == 1
    assert done.stderr.startswith(f"fraud-assets: expected port {ports[option]} to be free for {name}: ")
    assert f"choose another with {option}" in done.stderr
    assert installation.processes() == []
