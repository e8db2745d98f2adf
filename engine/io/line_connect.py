"""The connection to a camera process, which may start after us."""

import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

from lithostream.engine.errors import SourceError

CONNECT_S = 5.0  # for one try
RETRY_S = 0.1


def connected(source: str, until: float) -> socket.socket:
    """Connect to `tcp://host:port` or `unix:/path`, as soon as somebody listens.

    Parameters
    ----------
    source : str
    until : float
        Time of `time.monotonic` from which it is no longer tried again.

    Raises
    ------
    SourceError
        No address, or nobody there.
    """
    while True:
        try:
            return _connection(source)
        except (ConnectionRefusedError, FileNotFoundError, TimeoutError) as error:
            if time.monotonic() > until:
                raise _unreachable(source, error) from error
            time.sleep(RETRY_S)
        except OSError as error:
            raise _unreachable(source, error) from error


def _connection(source: str) -> socket.socket:
    if source.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        with ExitStack() as stack:
            stack.callback(connection.close)
            connection.connect(source.removeprefix("unix:"))
            stack.pop_all()
        return connection
    connection = socket.create_connection(tcp_address(source), timeout=CONNECT_S)
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def tcp_address(source: str) -> tuple[str, int]:
    """Host and port of `tcp://host:port`.

    Raises
    ------
    SourceError
    """
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise SourceError("is no address", file=source, fix="write it as tcp://host:port or unix:/path")
    return host, port


def _unreachable(source: str, error: OSError) -> SourceError:
    return SourceError(
        f"cannot be reached: {error.strerror or error}",
        file=source,
        fix="start the program that sends the lines, and check host, port and firewall",
    )
