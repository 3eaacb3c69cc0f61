"""Backups of a data directory, made while a server uses it, and put back while none does.

A backup is a folder, laid out as the data directory is: it costs no room where files can be hard links, for they never
change; any tool can copy or pack it; and one file of it can be looked at without the rest.

    hearth.sqlite   the database as it was at one moment
    accounts.sqlite that of keys and usage, where there is one; from a moment later
    files/          the bytes of the uploads that the first knows, no others
    backup.json     what these must be, written last

Indexes are left out: they are made again from the database.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

import server
from server.errors import StorageError
from server.rag.rows import files
from server.storage.data_layout import DataLayout
from server.storage.data_lock import data_lock
from server.storage.schema import ACCOUNT_MIGRATIONS, check_version, read_scripts

MANIFEST = "backup.json"
VERSION = 1

_REPLACED = "replaced-"
"""What was in a data directory before something was restored lies in a folder named so and by the time."""

_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}

Report = Callable[[str], None]


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup holds: the content of `backup.json`.

    Attributes:
        schema, database_sha256: Of the database of documents.
        accounts_schema, accounts_sha256: Of that of keys and usage; None where there was none.
    """

    version: int
    hearth: str
    made_at: str
    schema: int
    database_sha256: str
    num_files: int
    num_bytes: int
    accounts_schema: int | None = None
    accounts_sha256: str | None = None

    @property
    def has_accounts(self) -> bool:
        return self.accounts_schema is not None


def back_up(data_dir: Path, dest: Path, report: Report = lambda _: None) -> Backup:
    """Make a backup in a folder that does not exist yet; on return it is whole and safe, or it is not there.

    A running server is not kept from anything.

    Args:
        report: Told what is being done, for people.

    Raises:
        StorageError: There is nothing to back up, the folder exists, or something cannot be read or written; the
            message tells paths, it is for the operator.
    """
    source = DataLayout(data_dir)
    if not source.database.exists():
        raise StorageError(f"there is no database in {data_dir}; see `server.data_dir` of models.yaml")
    if dest.exists():
        raise StorageError(f"{dest} exists already; name a folder that does not")
    if dest.resolve().is_relative_to(data_dir.resolve()):
        raise StorageError(f"{dest} is inside {data_dir}, which a backup shall outlive; name another folder")
    with _explained("the backup cannot be made"), _new_folder(dest.with_name(f"{dest.name}.part")) as part:
        target = DataLayout(part)
        report("copying files")
        target.files.mkdir(mode=0o700)
        _take_all(source.files, target.files)
        report("copying the database")
        _take_database(source, target)
        if source.accounts.exists():
            _copy_database(source.accounts, target.accounts)
        report("reading the backup")
        backup = _describe(target)
        (part / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(backup)) + b"\n")
        for path in (part / MANIFEST, target.files, part):
            _sync(path)
        part.rename(dest)
        _sync(dest.parent)
    return backup


def restore(src: Path, data_dir: Path, *, replace: bool = False, report: Report = lambda _: None) -> Path | None:
    """Put a backup into a data directory that no server uses; everything is checked before anything changes.

    Keys are as they were when it was made: those that were revoked since are good again. A backup without keys leaves
    those that are there, as nobody means to open a server to everybody by this.

    Args:
        replace: Do so if there is something in it: that is moved into a folder of its own inside of it.

    Returns:
        That folder, if there was something.

    Raises:
        StorageError: It is no whole backup, or of a newer version; or the data directory is in use, not empty, or
            cannot be written. The message tells paths.
    """
    expected = _read_manifest(src)
    with data_lock(data_dir), _explained("the backup cannot be restored"):
        old = sorted(path for path in data_dir.iterdir() if path.name != "lock" and not path.name.startswith(_REPLACED))
        leftover = data_dir / "restore.part"
        if leftover in old:  # of one that was killed
            shutil.rmtree(leftover)
            old.remove(leftover)
        if not expected.has_accounts:
            old = [path for path in old if not path.name.startswith(DataLayout(data_dir).accounts.name)]
        if old and not replace:
            raise StorageError(
                f"{data_dir} is not empty; restore elsewhere, or use --replace, which keeps what is there"
            )
        with _new_folder(leftover) as part:
            report("copying the backup")
            _copy(DataLayout(src), DataLayout(part))
            report("reading the copy")
            if _describe(DataLayout(part), like=expected) != expected:
                raise StorageError(f"{src} is not what its {MANIFEST} says: it is damaged, or was changed")
            return _put_in_place(DataLayout(part), DataLayout(data_dir), old)


# ---- making


def _take_all(source: Path, target: Path) -> None:
    for path in source.iterdir() if source.exists() else ():
        if not path.name.endswith(".part"):  # else it is being uploaded
            _take(path, target / path.name)


def _take(source: Path, target: Path) -> bool:
    """Link a file that never changes, or copy it; false if it is gone."""
    try:
        if not _link(source, target):
            shutil.copyfile(source, target)
            _sync(target)
    except FileNotFoundError:
        return False
    return True


def _link(source: Path, target: Path) -> bool:
    """Return false where there can be no links."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError as exc:
        if exc.errno not in _CANNOT_LINK:
            raise
        return False
    return True


def _take_database(source: DataLayout, target: DataLayout) -> None:
    """Copy the database, and see that the files it knows are there, and no others.

    A file that is deleted goes from the database first: where one that the copy knows is gone, a later copy does not
    know it.
    """
    lost: set[str] = set()
    while True:
        _copy_database(source.database, target.database)
        known = _known_files(target.database)
        lost, lost_before = {each for each in known if not _has(source, target, each)}, lost
        if not lost:
            break
        if lost & lost_before:
            raise StorageError(
                f"the bytes of {sorted(lost & lost_before)[0]} are not in {source.files}, but the database knows it; "
                "delete that file, or restore an older backup"
            )
    for path in target.files.iterdir():
        if path.name not in known:
            path.unlink()


def _has(source: DataLayout, target: DataLayout, file_id: str) -> bool:
    return (target.files / file_id).exists() or _take(source.files / file_id, target.files / file_id)


def _copy_database(source: Path, target: Path) -> None:
    """Copy it as it is at one moment: in one step, during which the server writes on, and its WAL grows."""
    target.unlink(missing_ok=True)
    with closing(_open_for_reading(source)) as db, closing(sqlite3.connect(target)) as copy:
        db.backup(copy)
    target.chmod(0o600)
    _sync(target)


def _open_for_reading(path: Path, options: str = "mode=ro") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)


def _known_files(database: Path) -> dict[str, tuple[int, str]]:
    with closing(_open_for_reading(database, "immutable=1")) as db:
        return files.contents(db)


# ---- checking


def _read_manifest(src: Path) -> Backup:
    try:
        backup = msgspec.json.decode((src / MANIFEST).read_bytes(), type=Backup)
    except (OSError, msgspec.DecodeError) as exc:
        raise StorageError(f"{src} is no backup: its {MANIFEST} cannot be read ({exc})") from exc
    if backup.version != VERSION:
        raise StorageError(
            f"{src} has version {backup.version} but this Hearth reads {VERSION}; use Hearth {backup.hearth}"
        )
    check_version(f"{src}", backup.schema, len(read_scripts()))
    check_version(f"{src}", backup.accounts_schema or 0, len(read_scripts(ACCOUNT_MIGRATIONS)))
    return backup


def _describe(layout: DataLayout, like: Backup | None = None) -> Backup:
    """Read all of a backup, and see that it is whole.

    Args:
        like: Where version and time are taken from; default: this version, now.

    Raises:
        StorageError: The database is damaged, or a file is not what it knows of it.
    """
    schema = _sound_schema(layout.database)
    has_accounts = layout.accounts.exists()
    known = _known_files(layout.database)
    for file_id, expected in known.items():
        path = layout.files / file_id
        if (path.stat().st_size, _sha256(path)) != expected:
            raise StorageError(f"{path} is damaged: its bytes are not those that were uploaded")
    return Backup(
        version=VERSION,
        hearth=like.hearth if like else server.__version__,
        made_at=like.made_at if like else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        schema=schema,
        database_sha256=_sha256(layout.database),
        num_files=len(known),
        num_bytes=layout.database.stat().st_size
        + (layout.accounts.stat().st_size if has_accounts else 0)
        + sum(num_bytes for num_bytes, _ in known.values()),
        accounts_schema=_sound_schema(layout.accounts) if has_accounts else None,
        accounts_sha256=_sha256(layout.accounts) if has_accounts else None,
    )


def _sound_schema(database: Path) -> int:
    """The schema of a database that is whole. Raises StorageError if it is not."""
    with closing(_open_for_reading(database, "immutable=1")) as db:
        [(finding,)] = db.execute("PRAGMA quick_check(1)")
        [(schema,)] = db.execute("PRAGMA user_version")
    if finding != "ok":
        raise StorageError(f"the database is damaged: {finding}")
    return int(schema)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- restoring


def _copy(source: DataLayout, target: DataLayout) -> None:
    databases = [(source.database, target.database)]
    if source.accounts.exists():
        databases.append((source.accounts, target.accounts))
    for path, copy in databases:
        shutil.copyfile(path, copy)  # never a link: it will be written to
        copy.chmod(0o600)
    target.files.mkdir(mode=0o700)
    for file_id in _known_files(target.database):
        _take(source.files / file_id, target.files / file_id)
    for path in (*(copy for _, copy in databases), target.files, target.folder):
        _sync(path)


def _put_in_place(part: DataLayout, target: DataLayout, old: list[Path]) -> Path | None:
    """Move what was there out of the way, then the new in: the database goes first and comes last, for without one a
    server begins anew. Keys come before it, so that it is never without. What cannot be done is undone.
    """
    kept = target.folder / f"{_REPLACED}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    leaving = sorted(old, key=lambda path: not path.name.startswith(target.database.name))
    moves = [(path, kept / path.name) for path in leaving]
    if part.accounts.exists():
        moves.append((part.accounts, target.accounts))
    moves += [(part.files, target.files), (part.database, target.database)]
    if old:
        kept.mkdir(mode=0o700)
    done: list[tuple[Path, Path]] = []
    try:
        for source, destination in moves:
            source.rename(destination)
            done.append((source, destination))
    except OSError:
        for source, destination in reversed(done):
            destination.rename(source)
        if old:
            kept.rmdir()
        raise
    _sync(target.folder)
    return kept if old else None


# ---- folders


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder; leave nothing of it, unless it was given another name."""
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError as exc:
        raise StorageError(f"{folder} is there: another backup is being made, or was broken off; remove it") from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(f"{what}: {exc.strerror or exc} ({exc.filename})") from exc
    except sqlite3.Error as exc:
        raise StorageError(f"{what}: {exc}") from exc
    except UnicodeDecodeError as exc:  # of what SQLite hands out of a damaged page
        raise StorageError(f"{what}: the database is malformed: {exc}") from exc
