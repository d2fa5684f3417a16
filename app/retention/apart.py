"""A process of its own for archives: Arrow takes 60 MB that a service at rest does not need.

It reads requests from standard input and answers on standard output, each as a length and
MessagePack, and ends when nothing was asked for a while or the service is gone. Every request may
be made again.
"""

import os
import select
import struct
import sys
from datetime import datetime

import msgspec

from app.core.errors import Damaged, Unavailable
from app.usage.ledger import Entry

IDLE_S = 10.0
LENGTH = struct.Struct(">Q")


class Ask(msgspec.Struct, tag=True):
    """Something to do where archives are kept."""

    url: str


class Write(Ask, tag=True):
    """Keep these entries."""

    archive_id: str
    month: datetime
    entries: list[Entry]


class Read(Ask, tag=True):
    """Give the entries of a file, all or those under these keys."""

    path: str
    sha256: str | None
    only: list[tuple[str, str]] | None = None


class Measure(Ask, tag=True):
    """Give the size and hash of a file."""

    path: str


class Look(Ask, tag=True):
    """Judge a file."""

    path: str


class Remove(Ask, tag=True):
    """Keep nothing of a file."""

    path: str


class Kept(msgspec.Struct, tag=True):
    """A file's path, size and hash."""

    path: str
    bytes: int
    sha256: str


class Found(msgspec.Struct, tag=True):
    """The entries of a file."""

    entries: list[Entry]


class Judged(msgspec.Struct, tag=True):
    """What a file is found to be: a `Seen` as JSON, whose sums may pass 64 bits."""

    seen: bytes


class Gone(msgspec.Struct, tag=True):
    """Nothing is kept."""


class Failed(msgspec.Struct, tag=True):
    """It could not be done: `damaged`, `unavailable` or `bug`."""

    kind: str
    detail: str


Asked = Write | Read | Measure | Look | Remove
Reply = Kept | Found | Judged | Gone | Failed
asked_decoder = msgspec.msgpack.Decoder(Asked)
reply_decoder = msgspec.msgpack.Decoder(Reply)


def do(ask: Asked) -> Reply:
    """Do what is asked, here and now; failures are answers."""
    from app.retention.shelf import Shelf  # noqa: PLC0415  (Arrow: not for a service at rest)

    try:
        shelf = Shelf(ask.url)
        match ask:
            case Write():
                return Kept(*shelf.write(ask.archive_id, ask.month, ask.entries))
            case Read():
                return Found(shelf.read(ask.path, ask.sha256, ask.only))
            case Measure():
                return Kept(ask.path, *shelf.size_and_hash(ask.path))
            case Look():
                return Judged(msgspec.json.encode(shelf.look(ask.path)))
            case Remove():
                shelf.remove(ask.path)
                return Gone()
    except Damaged as error:
        return Failed("damaged", error.detail)
    except Unavailable as error:
        return Failed("unavailable", error.detail)
    except OSError as error:
        return Failed("unavailable", error.strerror or type(error).__name__)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return Failed("bug", f"{type(error).__name__}: {error}")
    except Exception as error:  # drivers of object stores have failures of their own
        return Failed("unavailable", type(error).__name__)


def main() -> None:
    """Answer what standard input asks, until it ends or is silent."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is not an answer
    questions = sys.stdin.buffer
    while select.select([questions], [], [], IDLE_S)[0]:
        head = questions.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return
        body = questions.read(LENGTH.unpack(head)[0])
        said = msgspec.msgpack.encode(do(asked_decoder.decode(body)))
        answers.write(LENGTH.pack(len(said)) + said)
        answers.flush()


if __name__ == "__main__":
    main()
