"""What a run tells programs beside it: one JSON object a line, in order, each at least once.

The lines of a section are numbered, and the same in every attempt: a reader drops what it has by section, version, key
and seq. A reader that is slow stops the run until it has read; nothing is dropped, and nothing waits in memory.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lithostream.engine.errors import StoppedError
from lithostream.engine.stream.sinks import Sink, open_sink

EVENTS = "events.jsonl"
SCHEMA_VERSION = 1
_HEAD = b'{"schema_version": '  # of every line

Kind = Literal["started", "begun", "rows", "gap", "committed", "unchanged", "refused", "finished", "stopped"]
COUNTED: frozenset[Kind] = frozenset({"begun", "rows", "gap", "committed"})
"""Kinds that make up a section's sequence; the others say what this run did, and a rerun says it anew."""

_LAST: frozenset[Kind] = frozenset({"committed", "refused"})


@dataclass(frozen=True, slots=True)
class Subject:
    """What a line is about.

    Attributes
    ----------
    section : str
    version : int, optional
        That the section has or will have in the ledger; None for an input that is no section.
    key : str, optional
        Equal in two attempts where their lines are: with another input, bundle or setting it is another.
    """

    section: str
    version: int | None = None
    key: str | None = None


class Events:
    """Lines to every sink, whole and in one order, whichever thread tells them.

    Parameters
    ----------
    sinks : sequence of Sink
        Owned from now on.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = tuple(sinks)
        self._next: dict[Subject, int] = {}
        self._lock = threading.Lock()

    def tell(self, kind: Kind, subject: Subject | None = None, **values: object) -> None:
        """Write one line; `begun` starts the numbers of its section.

        Parameters
        ----------
        kind : Kind
            "stopped" reaches those who still read, and never raises: another reason ends the run.
        subject : Subject, optional
            None for what is about the run.
        **values
            JSON-ready; NaN and infinity are not.

        Raises
        ------
        StoppedError
            A reader has gone.
        OSError
            The file cannot grow.
        """
        if kind == "stopped":
            for sink in self._sinks:
                sink.hurry()  # before the lock, which may be held by who waits for the reader
        with self._lock:
            line = self._line(kind, subject, values)
            if subject is not None and kind in _LAST:
                self._next.pop(subject, None)
            for sink in self._sinks:
                if kind == "stopped":
                    with suppress(StoppedError, OSError):
                        sink.write(line)
                else:
                    sink.write(line)

    def settle(self) -> None:
        """Let what was told outlast a loss of power; to be called before a section is marked as done."""
        for sink in self._sinks:
            sink.settle()

    def close(self) -> None:
        """End every sink."""
        for sink in self._sinks:
            sink.close()

    def _line(self, kind: Kind, subject: Subject | None, values: dict[str, object]) -> bytes:
        stated = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "section": subject.section if subject else None,
            "version": subject.version if subject else None,
            "key": subject.key if subject else None,
            "seq": self._number(kind, subject),
            "utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        return json.dumps(dict(**stated, **values), allow_nan=False).encode() + b"\n"

    def _number(self, kind: Kind, subject: Subject | None) -> int | None:
        if subject is None or kind not in COUNTED:
            return None
        number = 0 if kind == "begun" else self._next[subject]
        self._next[subject] = number + 1
        return number


def open_events(places: Iterable[str]) -> Events:
    """Open every place, see `open_sink`.

    Raises
    ------
    ConfigError
        One of them cannot be opened, or holds something else.
    """
    with ExitStack() as opened:
        sinks = []
        for place in places:
            sinks.append(open_sink(place, _HEAD))
            opened.callback(sinks[-1].close)
        opened.pop_all()
        return Events(sinks)
