"""The pages say what the code has: every name once, and no other."""

import re
from pathlib import Path

import pytest

from fraud_assets.domain.schemas import FEATURES, EventFeatures, Profile

PAGE = (Path(__file__).parent.parent / "docs" / "features.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """The cells after the name, by name, of the one table under `heading`; no name may come twice."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    names = [name.strip("`") for name, *_ in lines]
    assert len(names) == len(set(names))
    return dict(zip(names, (cells for _, *cells in lines), strict=True))


@pytest.mark.parametrize(
    ("heading", "names"),
    [("Features of an event", FEATURES), ("Fields of a profile", tuple(Profile.column_names()))],
)
def test_the_table_has_every_column_once_in_order_and_nothing_else(
    heading: str, names: tuple[str, ...]
) -> None:
    assert tuple(rows(heading)) == names


def test_every_feature_says_its_meaning_its_window_and_when_it_is_null() -> None:
    for name, cells in rows("Features of an event").items():
        assert len(cells) == 3, name
        meaning, window, null = cells
        assert meaning.endswith("."), name
        assert window in {"own", "profile", "30 days", "90 days"}, name
        assert null, name


def test_the_page_and_the_schema_agree_on_what_is_never_null() -> None:
    never = {name for name, cells in rows("Features of an event").items() if cells[2].startswith("never")}
    columns = EventFeatures.columns()
    assert never == {name for name in FEATURES if not columns[name].nullable}


def test_every_field_of_a_profile_says_its_meaning() -> None:
    assert all(len(cells) == 1 and cells[0].endswith(".") for cells in rows("Fields of a profile").values())
