"""A tenant's id is hostile input: whatever names something after it refuses all but plain names."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_assets.domain.errors import InvalidTenantId
from fraud_assets.domain.schemas import tenant_id
from fraud_assets.storage.ledger import Ledger
from fraud_assets.storage.platform import Platform
from fraud_assets.storage.registry import model_name, version_link
from fraud_assets.storage.source import Source
from fraud_assets.storage.tables import Tables
from fraud_assets_tests.builders import entry

FRAGMENTS = (
    "../",
    "/",
    "\\",
    "\0",
    "\n",
    "'",
    '"',
    ";--",
    "%2e",
    "$HOME",
    "acme",
    "ACME",
    "\u0430cme",
    "a" * 300,
    "-",
    ",",
)
"""One begins with a Cyrillic letter that looks like an a."""
IDS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=4).map("".join)
ROOT = Path("/nowhere")
NOW = entry("acme").decided_at

NAMERS: dict[str, Callable[[str], Any]] = {
    "a table": lambda tenant: Tables(ROOT).version(tenant, "profiles"),
    "a table's rows": lambda tenant: Tables(ROOT).read(tenant, "training_dataset"),
    "a scratch folder": lambda tenant: Tables(ROOT).scratch(tenant).__enter__(),
    "a registered model": model_name,
    "a page": lambda tenant: version_link(tenant, 1),
    "a decision": entry,
    "a question to the ledger": Ledger(f"sqlite:///{ROOT}/ledger.db").champion,
    "a question to the source": lambda tenant: Source(f"sqlite:///{ROOT}/source.db").parts(
        tenant, NOW, NOW, 1, ROOT
    ),
    "settings": Platform.from_environment({"FRAUD_ASSETS_HOME": "/tmp"}).settings,  # noqa: S108
}


def is_plain(text: str) -> bool:
    return re.fullmatch("[a-z0-9][a-z0-9-]*", text, re.ASCII) is not None and len(text) <= 50


@given(IDS)
def test_an_id_is_a_plain_name_or_refused(text: str) -> None:
    if is_plain(text):
        assert tenant_id(text) == text
    else:
        with pytest.raises(InvalidTenantId) as refused:
            tenant_id(text)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("named", NAMERS)
@given(text=IDS.filter(lambda text: not is_plain(text)))
def test_nothing_is_named_after_an_id_that_is_refused(named: str, text: str) -> None:
    with pytest.raises(InvalidTenantId):
        NAMERS[named](text)
