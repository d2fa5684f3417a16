"""Where archives are kept: a folder, or anything that fsspec has a driver for."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from app.core.errors import Damaged, Unavailable
from app.core.folders import sync_folder

MAX_BYTES = 1 << 28
"""A file beyond this is none of ours."""


class Place(Protocol):
    """Keeps bytes under relative paths; a path has them whole or not at all."""

    def put(self, path: str, data: bytes) -> None:
        """Keep the bytes; on return they are durable."""

    def get(self, path: str) -> bytes:
        """The bytes kept.

        Raises:
            Damaged: there are none.
            Unavailable: nobody can tell now.
        """

    def delete(self, path: str) -> None:
        """Keep nothing under the path, nor anything left of an attempt to."""


def place_at(url: str) -> Place:
    """The place that a folder's path or a URL names.

    Raises:
        Unavailable: no driver for such a URL is installed.
    """
    if "://" not in url:
        return Folder(Path(url))
    if url.startswith("file://"):
        return Folder(Path(url.removeprefix("file://")))
    return Bucket(url)


class Folder:
    """A local folder. What is put there has reached the disk, name and all."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, data: bytes) -> None:
        target = self._root / path
        _make(target.parent)
        part = _part_of(target)
        try:
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
            sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def get(self, path: str) -> bytes:
        if not self._root.is_dir():
            raise Unavailable("the folder of the archives is not there")
        try:
            with open(self._root / path, "rb") as file:
                if os.fstat(file.fileno()).st_size > MAX_BYTES:
                    raise Damaged("the file is larger than any archive")
                return file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise Damaged("the file is missing") from None

    def delete(self, path: str) -> None:
        target = self._root / path
        for one in (target, _part_of(target)):
            one.unlink(missing_ok=True)
        if target.parent.is_dir():
            sync_folder(target.parent)
            with suppress(OSError):  # other archives lie there
                target.parent.rmdir()


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _make(folder: Path) -> None:
    """Make a folder and those above it, each of them durable."""
    if folder.is_dir():
        return
    _make(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


class Bucket:
    """Anything else: there a name appears with all its bytes, so none is renamed."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415  (a service with a folder never needs it)

        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            scheme = url.partition("://")[0]
            raise Unavailable(f"no driver for {scheme}:// is installed") from error

    def put(self, path: str, data: bytes) -> None:
        target = self._at(path)
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(target, data)

    def get(self, path: str) -> bytes:
        try:
            self._files.invalidate_cache()
            if self._files.size(self._at(path)) > MAX_BYTES:
                raise Damaged("the file is larger than any archive")
            found: Any = self._files.cat_file(self._at(path))
        except (FileNotFoundError, IsADirectoryError):
            raise Damaged("the file is missing") from None
        return bytes(found)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._at(path))

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"
