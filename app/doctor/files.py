"""Whether files of the service can be written by it, read by nobody else, and lie on a disk."""

import os
import stat
from pathlib import Path

from sqlalchemy import make_url

from app.doctor.finding import Finding, Patient

CHECK = "files"
MOUNTS = Path("/proc/self/mountinfo")
SHARES = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs")
MEMORY = ("tmpfs", "ramfs")
LAYERS = ("overlay", "aufs")


async def files(patient: Patient) -> list[Finding]:
    """The database file with those beside it, and the archives' folder."""
    return _looked(patient)


def _looked(patient: Patient) -> list[Finding]:
    found: list[Finding] = []
    mounts = MOUNTS.read_text(encoding="utf-8") if MOUNTS.exists() else ""
    if (database := database_file(patient)) is not None:
        beside = [Path(f"{database}{end}") for end in ("", "-wal", "-shm")]
        for path in (one for one in beside if one.exists()):
            found += access(path)
        found += access(database.parent, readers=False)
        found += ground(database, filesystem_of(database, mounts), is_database=True)
    if (folder := archive_folder(patient)) is not None and folder.exists():
        found += access(folder)
        found += ground(folder, filesystem_of(folder, mounts), is_database=False)
    return found or [Finding(CHECK, "ok", "there are no local files to look at")]


def database_file(patient: Patient) -> Path | None:
    """The SQLite file; None where the database is a server."""
    if patient.db.dialect != "sqlite":
        return None
    return Path(make_url(patient.settings.database_url).database or "").absolute()


def archive_folder(patient: Patient) -> Path | None:
    """The folder that archives are kept in; None where it is a bucket."""
    url = patient.settings.archive_url.removeprefix("file://")
    return None if "://" in url else Path(url).absolute()


def access(path: Path, *, readers: bool = True) -> list[Finding]:
    """Whether we may write there and strangers may not; with `readers`, nor read what is inside."""
    mode = stat.S_IMODE(path.stat().st_mode)
    said = f"{path} has mode {mode:04o}"
    if not os.access(path, os.W_OK):
        return [Finding(CHECK, "fail", f"{path} cannot be written", _owner(path))]
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        advice = f"others can change what is billed: chmod o-w {path}"
        return [Finding(CHECK, "fail", said, advice)]
    if readers and mode & stat.S_IROTH and not _is_shut(path.parent):
        advice = f"others can read what customers used: chmod o-rwx {path}"
        return [Finding(CHECK, "warn", said, advice)]
    return [Finding(CHECK, "ok", said)]


def _owner(path: Path) -> str:
    return f"give it to the user of the service: chown {os.geteuid()} {path}"


def _is_shut(folder: Path) -> bool:
    """Whether strangers cannot reach what lies in the folder, whatever its own mode is."""
    return not folder.stat().st_mode & stat.S_IXOTH


def filesystem_of(path: Path, mounts: str) -> str:
    """The kind of filesystem that a path lies on, by the text of `mountinfo`; empty: unknown."""
    best, kind = -1, ""
    real = os.path.realpath(path)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        inside = real == point or real.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind


def ground(path: Path, kind: str, *, is_database: bool) -> list[Finding]:
    """Whether what is acknowledged there is still there after a power cut."""
    if (kind in SHARES or kind.startswith("fuse.")) and is_database:
        advice = "SQLite cannot share a file over a network: use a local disk, or PostgreSQL"
        return [Finding(CHECK, "fail", f"{path} is on a network share ({kind})", advice)]
    if kind in MEMORY:
        advice = "everything is lost when the machine stops: move it to a disk"
        return [Finding(CHECK, "warn", f"{path} lies in memory ({kind})", advice)]
    if kind in LAYERS and is_database:
        advice = "it is lost with the container: keep it on a volume"
        return [Finding(CHECK, "warn", f"{path} is on a container's own layer ({kind})", advice)]
    return [Finding(CHECK, "ok", f"{path} is on {kind}")] if kind else []
