"""Questions to Dagster's webserver, as its pages ask them. No tests here."""

import json
from typing import Any
from urllib.request import Request, urlopen

REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "fraud_assets"}
"""The one code location, as GraphQL selects it."""


def ask(port: int, query: str, **variables: object) -> dict[str, Any]:
    """The `data` of the answer."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = Request(
        f"http://127.0.0.1:{port}/graphql", data=body, headers={"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:  # noqa: S310
        told = json.load(answer)
    assert "errors" not in told, told["errors"]
    return told["data"]
