"""How a database's URL is read, and how one that cannot be used is told without its secrets."""

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError


def parsed(url: str) -> sa.URL | None:
    """None if it cannot be parsed."""
    try:
        return sa.make_url(url)
    except (ArgumentError, ValueError):
        return None


def told(url: sa.URL | None) -> str:
    """What was got, in words: the password is hidden, the query left out."""
    return str(url.set(query={})) if url else "one that cannot be parsed"
