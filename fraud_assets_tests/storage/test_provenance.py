"""Which code and libraries run: the commit where there is one, the release where there is none."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from fraud_assets.storage import provenance


def git(checkout: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a checkout of its own, all of it committed."""
    made = tmp_path / "some package"
    made.mkdir()
    (made / "module.py").write_text("one = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return made


def test_the_commit_of_a_clean_checkout_is_its_head(package: Path) -> None:
    assert provenance.commit(package) == git(package.parent, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["module.py", "new.py"])
def test_a_changed_or_new_file_of_the_package_makes_it_dirty(package: Path, name: str) -> None:
    (package / name).write_text("one = 2\n")
    assert provenance.commit(package) == f"{git(package.parent, 'rev-parse', 'HEAD')}-dirty"


def test_a_change_elsewhere_in_the_checkout_is_no_change_of_the_code(package: Path) -> None:
    (package.parent / "notes.txt").write_text("nothing")
    assert provenance.commit(package) == git(package.parent, "rev-parse", "HEAD")


def test_a_package_that_somebody_installed_into_a_checkout_is_none_of_its_code(package: Path) -> None:
    inner = package / "lib" / "fraud_assets"
    inner.mkdir(parents=True)
    assert provenance.commit(inner) is None


def test_without_a_commit_or_without_git_there_is_none(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty" / "package"
    empty.mkdir(parents=True)
    git(empty.parent, "init", "--quiet")
    assert provenance.commit(empty) is None
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(package) is None


def test_a_variable_of_a_hook_does_not_lead_to_another_repository(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(package.parent, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert provenance.commit(package) == head


def test_release_and_libraries_are_always_named(tmp_path: Path) -> None:
    found = provenance.of_code(tmp_path / "package")
    assert set(found) == {"release", "python", *provenance.LIBRARIES}
    assert all(found[library] == metadata.version(library) for library in provenance.LIBRARIES)
