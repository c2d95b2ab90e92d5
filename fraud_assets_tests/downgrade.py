"""MLflow's and Dagster's databases as earlier releases of theirs left them. No tests here."""

import dagster_postgres.run_storage.run_storage as of_dagster
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from dagster_postgres.utils import pg_alembic_config
from mlflow.store.db import utils as of_mlflow
from sqlalchemy.pool import NullPool

MLFLOW = "b7e2c1a4d9f3"
"""Before the columns of traces and the job executor."""
DAGSTER = "6b7fb194ff9c"
"""Before `using_default_limit` of concurrency limits."""


def mlflow(url: str) -> None:
    """Takes back MLflow's latest migrations."""
    _downgrade(url, of_mlflow._get_alembic_config(""), MLFLOW)


def dagster(url: str) -> None:
    """Takes back Dagster's latest migrations."""
    _downgrade(url, pg_alembic_config(of_dagster.__file__), DAGSTER)


def _downgrade(url: str, config: Config, to: str) -> None:
    with sa.create_engine(url, poolclass=NullPool).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, to)


def revision(url: str) -> str:
    """Which migration was the database's latest."""
    with sa.create_engine(url, poolclass=NullPool).connect() as connection:
        return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())
