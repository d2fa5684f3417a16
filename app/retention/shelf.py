"""The work on archives' files, done where blocking is allowed: write, read, judge, remove."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import sha256 as sha256_of

import msgspec

from app.core.errors import Damaged
from app.retention.facts import FORMAT, Facts, Manifest, Seen, Written, facts_of
from app.retention.parquet import from_parquet, to_parquet
from app.retention.places import Place, place_at
from app.usage.ledger import Entry

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_PATH = re.compile(r"month=\d{4}-\d{2}/[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.parquet", re.ASCII)


Key = tuple[str, str]


def path_of(archive_id: str, month: datetime) -> str:
    """Where an archive's file lies, relative to where archives are kept.

    Raises:
        ValueError: such an id is none of ours.
    """
    if not _ID.fullmatch(archive_id):
        raise ValueError("not an archive's id")
    return f"month={month:%Y-%m}/{archive_id}.parquet"


def manifest_path(path: str) -> str:
    """Where the manifest of a file lies. Readers of a folder of Parquet pass over `_` names."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/_{name.removesuffix('.parquet')}.json"


class Shelf:
    """The files at one place."""

    def __init__(self, url: str) -> None:
        self._place: Place = place_at(url)

    def write(self, archive_id: str, month: datetime, entries: Sequence[Entry]) -> Written:
        """Keep the entries and their manifest; if either cannot be, neither is kept."""
        path = path_of(archive_id, month)
        data = to_parquet(entries)
        written = Written(path, len(data), sha256_of(data).hexdigest())
        manifest = Manifest(
            format=FORMAT,
            id=archive_id,
            month=f"{month:%Y-%m}",
            file=path.rpartition("/")[2],
            bytes=written.bytes,
            sha256=written.sha256,
            columns=list(Entry._fields),
            facts=facts_of(entries),
        )
        try:
            self._place.put(path, data)
            text = msgspec.json.format(msgspec.json.encode(manifest))
            self._place.put(manifest_path(path), text + b"\n")
        except BaseException:
            self._clear(path)
            raise
        return written

    def read(
        self, path: str, sha256: str | None, only: Collection[Key] | None = None
    ) -> list[Entry]:
        """The entries of a file; with a `sha256`, of exactly that one; `only` these of them."""
        data = self._get(path)
        if sha256 is not None and sha256_of(data).hexdigest() != sha256:
            raise Damaged("the file is not the one that was written")
        found = from_parquet(data)
        if only is None:
            return found
        keys = set(only)
        return [entry for entry in found if entry[:2] in keys]

    def size_and_hash(self, path: str) -> tuple[int, str]:
        """How many bytes a file has, and their SHA-256."""
        data = self._get(path)
        return len(data), sha256_of(data).hexdigest()

    def look(self, path: str) -> Seen:
        """Read a file and its manifest as a whole, and say where they disagree."""
        try:
            data = self._get(path)
        except Damaged as error:
            return Seen(0, "", None, [], [error.detail])
        digest, problems = sha256_of(data).hexdigest(), []
        facts, user_ids = None, set()
        try:
            entries = from_parquet(data)
            facts, user_ids = facts_of(entries), {entry.user_id for entry in entries}
        except Damaged as error:
            problems.append(error.detail)
        problems += self._against_manifest(path, len(data), digest, facts)
        return Seen(len(data), digest, facts, sorted(user_ids), problems)

    def remove(self, path: str) -> None:
        """Keep nothing of an archive, whole or half; there may be nothing."""
        _check(path)
        self._place.delete(manifest_path(path))
        self._place.delete(path)

    def _against_manifest(
        self, path: str, size: int, digest: str, facts: Facts | None
    ) -> list[str]:
        try:
            said = msgspec.json.decode(self._place.get(manifest_path(path)), type=Manifest)
        except Damaged:
            return ["the manifest is missing"]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ["the manifest cannot be read"]
        folder, name = path.split("/")
        pairs = {
            "format": (said.format, FORMAT),
            "id": (said.id, name.removesuffix(".parquet")),
            "month": (said.month, folder.removeprefix("month=")),
            "file": (said.file, name),
            "columns": (said.columns, list(Entry._fields)),
            "bytes": (said.bytes, size),
            "sha256": (said.sha256, digest),
        }
        if facts is not None:
            pairs |= {
                field: (getattr(said.facts, field), getattr(facts, field))
                for field in Facts.__struct_fields__
            }
        return [
            f"the manifest says another {name} than the file has"
            for name, (stated, found) in pairs.items()
            if stated != found
        ]

    def _get(self, path: str) -> bytes:
        _check(path)
        return self._place.get(path)

    def _clear(self, path: str) -> None:
        for one in (manifest_path(path), path):
            try:
                self._place.delete(one)
            except OSError:
                continue  # what failed before is what the caller has to know


def _check(path: str) -> None:
    if not _PATH.fullmatch(path):
        raise ValueError("not the path of an archive")
