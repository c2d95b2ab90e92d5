"""Per-tenant Delta Lake tables, one a tenant and kind; the only builder of paths. No rules, no Dagster.

A write replaces a table as a whole: whoever reads meanwhile, or after a crash, sees the old version or
the new one. A version number names the same rows for ever, until it is pruned.
"""

import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal
from urllib.parse import unquote

import dataframely as dy
import polars as pl
import polars.selectors as cs
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from fraud_assets.domain.errors import Refused, TableDamaged, TableNotFound, TableNotWritten
from fraud_assets.domain.schemas import Profile, TrainingDataset, tenant_id

Kind = Literal["profiles", "training_dataset"]

_SCHEMAS: Final[dict[Kind, type[dy.Schema]]] = {"profiles": Profile, "training_dataset": TrainingDataset}
_POSITION: Final = "_position"
# What polars' reader does not expect of a file ends in a panic, which is no Exception.
_UNREADABLE: Final = (
    OSError,
    UnicodeError,
    MemoryError,
    pa.ArrowException,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)
_DIGEST: Final = "facts_digest"
_LEFT_OVER: Final = timedelta(days=1)
# Delta forgets versions after 30 days by default; a registered model names its version for longer.
_CONFIGURATION: Final = {"delta.enableExpiredLogCleanup": "false"}


@dataclass(frozen=True)
class Tables:
    """The tables under `root`. Opens nothing until asked; every method raises InvalidTenantId."""

    root: str | Path

    def write(
        self, tenant: str, kind: Kind, frame: pl.DataFrame | pl.LazyFrame, facts: Mapping[str, str]
    ) -> int:
        """Replaces the table by `frame`, whose columns may differ from the last version's.

        A lazy one is never in memory as a whole. `facts` are kept with the version. Returns its number, from
        0 on. Raises TableNotWritten, and TableDamaged if its log cannot be read; the table is then as it was.
        """
        path = self._path(tenant, kind)
        self._writes(tenant, kind)
        said = json.dumps(dict(facts))
        # Delta has no enumerations and promises no order of rows.
        stored = frame.lazy().with_columns(cs.enum().cast(pl.String)).with_row_index(_POSITION)
        try:
            stored.sink_delta(
                path,
                mode="overwrite",
                delta_write_options={
                    "schema_mode": "overwrite",
                    "configuration": _CONFIGURATION,
                    "commit_properties": CommitProperties(
                        custom_metadata={"facts": said, _DIGEST: _digest(said)}
                    ),
                },
            )
        except (DeltaError, OSError) as error:
            raise TableNotWritten(
                f"expected to write {kind} of tenant {tenant} under {self.root}, got: {error}; check that "
                "its disk has room and is writable, then try again"
            ) from error
        return max(self._writes(tenant, kind))

    def read(self, tenant: str, kind: Kind, version: int | None = None) -> pl.DataFrame:
        """The rows of all `parts`."""
        return pl.concat(self.parts(tenant, kind, version))

    def parts(self, tenant: str, kind: Kind, version: int | None = None) -> Iterator[pl.DataFrame]:
        """The table's rows as they were written, in that order, about a file at a time; one part at least.

        The newest version if none is named. Raises TableNotFound if there is no such table or version, and
        TableDamaged if its files cannot be read. Nothing tells here that a file was altered and can still be
        read.
        """
        self.facts(tenant, kind, version)
        try:
            for part in _in_order(Path(self._path(tenant, kind)), version):
                yield _as_written(part, kind)
        except _UNREADABLE as error:
            # The files of an older version may have been pruned.
            if isinstance(error, FileNotFoundError) and version not in {None, self.version(tenant, kind)}:
                raise self._not_found(tenant, kind, version) from error
            raise _damaged(tenant, kind, error) from error

    def facts(self, tenant: str, kind: Kind, version: int | None = None) -> dict[str, str]:
        """What was said of the version when it was written; the newest one if none is named.

        Raises TableNotFound if there is no such table or version, and TableDamaged if that was altered.
        """
        writes = self._writes(tenant, kind)
        if not writes or (version is not None and version not in writes):
            raise self._not_found(tenant, kind, version)
        try:
            return _facts(writes[max(writes) if version is None else version])
        except (KeyError, ValueError) as error:
            raise _damaged(tenant, kind, error) from error

    def version(self, tenant: str, kind: Kind) -> int | None:
        """The newest version's number; None if the table was never written."""
        return max(self._writes(tenant, kind), default=None)

    def prune(
        self, tenant: str, kind: Kind, keep: Collection[int], unused_for: timedelta = timedelta(days=1)
    ) -> int:
        """Deletes the data of all versions but those in `keep` and the newest; returns how many files.

        Files that a version stopped using less than `unused_for` (whole hours) ago stay, for the sake of
        who still reads them. Raises TableNotFound if there is no such table or kept version.
        """
        for version in keep:
            self.facts(tenant, kind, version)
        hours = int(unused_for / timedelta(hours=1))
        return len(
            DeltaTable(self._path(tenant, kind)).vacuum(
                hours, dry_run=False, enforce_retention_duration=False, keep_versions=sorted(keep)
            )
        )

    def erase(self, tenant: str) -> bool:
        """Deletes all of the tenant's tables and its scratch folder; whether there was anything."""
        folder = Path(self.root, tenant_id(tenant))
        if not folder.exists():
            return False
        try:
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        except OSError as error:
            raise Refused(f"expected to be able to delete {folder}, got: {error}; then try again") from error
        return True

    @contextmanager
    def scratch(self, tenant: str) -> Iterator[Path]:
        """An empty folder for what a stage of the tenant's need not keep in memory; gone at the end.

        On the disk of the tables: a system's folder for temporary files may lie in memory. What a run left
        that was killed more than a day ago goes too.
        """
        parent = Path(self.root, tenant_id(tenant), "scratch")
        parent.mkdir(parents=True, exist_ok=True)
        for folder in parent.iterdir():
            if time.time() - folder.stat().st_mtime > _LEFT_OVER.total_seconds():
                shutil.rmtree(folder, ignore_errors=True)
        with TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as made:
            yield Path(made)

    def _path(self, tenant: str, kind: Kind) -> str:
        if kind not in _SCHEMAS:
            raise ValueError(f"expected a kind of table among {', '.join(_SCHEMAS)}, got {kind!r}")
        return f"{self.root}/{tenant_id(tenant)}/{kind}"

    def _writes(self, tenant: str, kind: Kind) -> dict[int, dict[str, Any]]:
        """The commits by version that are writes; pruning makes commits too."""
        path = self._path(tenant, kind)
        if not DeltaTable.is_deltatable(path):
            return {}
        try:
            commits = _commits(path)
            return {n: each for n, each in commits.items() if each["operation"] == "WRITE" or _DIGEST in each}
        except (DeltaError, OSError, KeyError, ValueError) as error:
            raise TableDamaged(
                f"expected the log of {kind} of tenant {tenant} to be whole, got: {_first_line(error)}; "
                f"restore {path} from a backup, or move it away and materialize it again"
            ) from error

    def _not_found(self, tenant: str, kind: Kind, version: int | None) -> TableNotFound:
        which = kind if version is None else f"version {version} of {kind}"
        return TableNotFound(
            f"expected {which} of tenant {tenant}, found none under {self.root}; "
            f"materialize {kind} for this tenant first, or ask for a version that was not pruned"
        )


def _commits(path: str) -> dict[int, dict[str, Any]]:
    """All commits by version. Raises ValueError if one says nothing of itself."""
    table = DeltaTable(path)
    while True:
        version, found = table.version(), table.history()
        # The versions of all are counted down from this one, and are wrong if a writer was faster.
        table.update_incremental()
        if table.version() == version:
            break
    commits = {commit["version"]: commit for commit in found}
    if set(commits) != set(range(version + 1)):
        raise ValueError(f"{len(commits)} commits at version {version}")
    return commits


def _damaged(tenant: str, kind: Kind, error: BaseException) -> TableDamaged:
    return TableDamaged(
        f"expected {kind} of tenant {tenant} to be readable, got: {_first_line(error)}; materialize it again"
    )


def _first_line(error: BaseException) -> str:
    """The library's own words, without its stack."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _facts(commit: Mapping[str, Any]) -> dict[str, str]:
    """Raises KeyError or ValueError if they were altered; an earlier release kept no digest of them."""
    if commit.get(_DIGEST, found := _digest(commit["facts"])) != found:
        raise ValueError(f"facts with SHA-256 {found:.12}, which were altered")
    return json.loads(commit["facts"])


def _in_order(folder: Path, version: int | None) -> Iterator[pl.DataFrame]:
    """The rows by their positions; of files that overlap, as maintenance may make them, several at once."""
    table, first = DeltaTable(folder, version), f"min.{_POSITION}"
    files = pl.DataFrame(table.get_add_actions(flatten=True)).sort(first)
    held = pl.DataFrame(schema=pl.Schema(table.schema()))
    for name, following in zip(files["path"], files[first].fill_null(0).shift(-1), strict=True):
        read = pl.read_parquet(_inside(folder, unquote(name)), glob=False, hive_partitioning=False)
        rows = pl.concat([held, read]).sort(_POSITION)
        end = rows.height if following is None else rows[_POSITION].search_sorted(following)
        yield rows[:end]
        held = rows[end:]
    yield held


def _inside(folder: Path, name: str) -> Path:
    """Raises OSError for a file that lies elsewhere: who altered the log might have another tenant's read."""
    path = folder / name
    # Of a name that holds a null byte nothing can be asked: it is no file's.
    if "\0" in name or path.resolve().parent != folder.resolve():
        raise OSError(f"the file {name!r:.100}, which lies outside of the table's folder")
    return path


def _as_written(stored: pl.DataFrame, kind: Kind) -> pl.DataFrame:
    declared = _SCHEMAS[kind].create_empty().select(cs.enum()).schema
    enumerations = [pl.col(name).cast(dtype) for name, dtype in declared.items() if name in stored.columns]
    return stored.drop(_POSITION).with_columns(enumerations)
