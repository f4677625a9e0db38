"""Versions of packages: dpkg's status, and a database that rpm 4.18 wrote when qemu-kvm-core was installed."""

import gzip
import sqlite3
from pathlib import Path

import pytest

from pfnmap.host.packages import DPKG_STATUS, RPM_DATABASES, installed
from pfnmap.host.tree import Directory

DATABASE = gzip.decompress((Path(__file__).parent / "data" / "rpmdb.sqlite.gz").read_bytes())


@pytest.fixture
def tree(tmp_path):
    """Return files below a directory."""

    def lay_out(path, content):
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        return Directory(tmp_path)

    return lay_out


@pytest.mark.parametrize("path", RPM_DATABASES)
def test_rpm_s_database_has_version_and_release(tree, path):
    assert installed(tree(path, DATABASE), ["qemu-kvm-core", "qemu-kvm"]) == {"qemu-kvm-core": "9.1.0-15.el9_7"}


def test_dpkg_s_status_has_what_is_installed(tree):
    status = b"""Package: qemu-system-x86
Status: install ok installed
Description: two
 Version: 9
Version: 1:8.2.2+ds-0ubuntu1.7

Package: qemu-system-arm
Status: deinstall ok config-files
Version: 1:8.2.2+ds-0ubuntu1.7
"""
    found = installed(tree(DPKG_STATUS, status), ["qemu-system-x86", "qemu-system-arm"])
    assert found == {"qemu-system-x86": "1:8.2.2+ds-0ubuntu1.7"}


def test_host_without_either_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        installed(Directory(tmp_path), ["x"])


def endless(tmp_path):
    path = tmp_path / "x"
    with sqlite3.connect(path) as database:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS hnum, 'x' AS key FROM n"
        database.execute("CREATE TABLE Packages (hnum INTEGER, blob BLOB)")
        database.execute(f"CREATE VIEW Name AS {numbers}")
    database.close()
    return path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", DATABASE[:5000], b"\xff" * 9000, None])
def test_database_that_is_none_is_an_error_of_reading(tree, tmp_path, content):
    with pytest.raises(OSError, match="no database of rpm"):
        installed(tree(RPM_DATABASES[1], endless(tmp_path) if content is None else content), ["qemu-kvm-core", "x"])
