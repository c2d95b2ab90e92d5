"""MLflow's own database: made, or brought up to this release's schema. No model is read or written here."""

from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from fraud_assets.domain.errors import InvalidSettings, RegistryUnreachable
from fraud_assets.storage import urls

_EXPECTED: Final = "a database URL such as postgresql://user:password@host:5432/database"


def server_url(url: str) -> str:
    """`url` of a PostgreSQL database as MLflow takes it. Raises InvalidSettings for any other.

    SQLAlchemy takes plain `postgresql://` for psycopg 3, which is not here.
    """
    parsed = urls.parsed(url)
    if parsed and parsed.drivername in {"postgresql", "postgresql+psycopg2"} and parsed.host:
        return parsed.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    raise InvalidSettings(f"expected {_EXPECTED}, got {urls.told(parsed)}; correct FRAUD_ASSETS_MLFLOW_URL")


def prepare(url: str) -> None:
    """What `mlflow db upgrade` does, without the password on a command line; idempotent, keeps what is there.

    One process does it, before a server is started. Raises RegistryUnreachable.
    """
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(url)
    try:
        if utils._is_empty_database(engine):
            utils._initialize_tables(engine)
        elif utils._get_schema_version(engine) != utils._get_latest_schema_revision():
            utils._upgrade_db(engine)
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", error)).strip()
        raise RegistryUnreachable(
            f"expected MLflow's database {engine.url} to answer, got: {said}; "
            "check that it is there and that its user owns it"
        ) from error
    finally:
        engine.dispose()
