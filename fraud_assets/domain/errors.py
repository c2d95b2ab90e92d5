"""Every error that the platform raises on purpose.

A message says what was expected, what came, and what to do. It is one line, wherever it is shown: what came
may be a stranger's text.

    FraudAssetsError
    ├── InvalidSettings        a settings file or value that cannot be used
    ├── InvalidTenantId        a tenant id that is not a safe name
    ├── SourceError            the tenant's operational database
    │   ├── SourceUnreachable  no connection, or it broke half-way; worth another try
    │   └── SourceMismatch     a table or column is missing or has the wrong type
    ├── UnusableRecords        records that no model can be fitted on or judged by
    ├── TableNotFound          a tenant's table that has not been written yet
    ├── TableNotWritten        a tenant's table that could not be written, as on a full disk
    ├── DiskFull               a disk without room for what memory does not hold
    ├── TableDamaged           a tenant's table whose files were altered or are incomplete
    ├── RegistryError          the model registry
    │   ├── RegistryUnreachable  no answer; worth another try
    │   └── ModelDamaged       a model file is missing, truncated or altered
    ├── LedgerUnreachable      the record of decisions did not answer; worth another try
    ├── DagsterUnreachable     the database of Dagster's runs and events did not answer
    └── Refused                what a person asked for cannot be done so
"""

from typing import Final

from fraud_assets.domain.text import shown

LONGEST: Final = 2000
"""Characters of a message."""


class FraudAssetsError(Exception):
    """The root of every error raised on purpose."""

    def __str__(self) -> str:
        return shown(super().__str__(), LONGEST)


class InvalidSettings(FraudAssetsError, ValueError):
    """A settings file or value cannot be used."""


class InvalidTenantId(FraudAssetsError, ValueError):
    """A tenant id is not a safe name."""


class SourceError(FraudAssetsError):
    """The tenant's operational database could not be read."""


class SourceUnreachable(SourceError):
    """The database did not answer, or the connection broke half-way."""


class SourceMismatch(SourceError):
    """A table or column is missing, or has another type than expected."""


class UnusableRecords(FraudAssetsError, ValueError):
    """Records that no model can be fitted on or judged by: none, of one class, or without a score."""


class TableNotFound(FraudAssetsError, LookupError):
    """A tenant's table has not been written yet."""


class TableNotWritten(FraudAssetsError):
    """A tenant's table could not be written; it is as it was."""


class DiskFull(FraudAssetsError):
    """Too little room on a disk for what memory does not hold."""


class TableDamaged(FraudAssetsError):
    """A tenant's table does not hold what was written."""


class RegistryError(FraudAssetsError):
    """The model registry could not do what was asked."""


class RegistryUnreachable(RegistryError):
    """The model registry did not answer."""


class ModelDamaged(RegistryError):
    """A model file is missing, truncated or altered."""


class LedgerUnreachable(FraudAssetsError):
    """The record of decisions did not answer."""


class DagsterUnreachable(FraudAssetsError):
    """The database of Dagster's runs and events did not answer."""


class Refused(FraudAssetsError, ValueError):
    """What a person asked for cannot be done so."""
