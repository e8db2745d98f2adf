"""Compiled plans on disk: private, sealed, and only those that were built here.

A plan is native code: whoever can plant one runs what they like. So the folder belongs to one user alone, every
entry carries an HMAC made with a random key that never leaves that folder, and no byte of an entry is parsed or
given to a runtime before its seal holds. Anything else is built again.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lithostream.engine.cache import private_folder

SCHEMA_VERSION = 1
FOLDER = "plans"
MAX_MANIFEST_BYTES = 1 << 16
_SECRET, _SECRET_BYTES = "secret", 32
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

# Told the phase, steps done and steps in all.
Progress = Callable[[str, int, int], None]
Build = Callable[[Progress], bytes]
Key = Mapping[str, str]
"""All that decides a plan's bytes: model, runtime, GPU, driver, precision, shapes."""


class _Refused(Exception):
    """Why an entry is not used; never leaves this file."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan whose seal holds.

    Attributes
    ----------
    content : bytes
        As the runtime serialised it.
    path : Path
        Where it lies.
    built : bool
        Whether this call built it, rather than an earlier one or another process.
    """

    content: bytes
    path: Path
    built: bool


class PlanCache:
    """Sealed entries in the private folder `plans` of the cache.

    Raises
    ------
    BackendError
        The folder is not this user's alone.
    """

    def __init__(self) -> None:
        self.folder = private_folder(FOLDER)
        self._secret = self._own_secret()

    def get_or_build(self, key: Key, build: Build, progress: Progress) -> Plan:
        """Return the plan of `key`; the first process to ask builds it, others wait for its result.

        A builder that dies frees its lock with its process, and leaves nothing behind that counts.
        """
        path = self.path(key)
        try:
            return Plan(self._verified(key), path, built=False)
        except FileNotFoundError:
            pass
        except (_Refused, OSError) as reason:
            progress(f"plan on disk not used: {reason}", 0, 1)
        with self._locked(path.stem, progress):
            content = self.load(key)
            if content is not None:
                return Plan(content, path, built=False)
            content = build(progress)
            self._write(key, content)
        return Plan(content, path, built=True)

    def load(self, key: Key) -> bytes | None:
        """Return the content stored under `key`, or None where there is none whose seal holds."""
        try:
            return self._verified(key)
        except (_Refused, OSError):
            return None

    def store(self, key: Key, content: bytes) -> None:
        """Seal and keep `content`, in place of what was stored under `key`."""
        with self._locked(self.path(key).stem):
            self._write(key, content)

    def path(self, key: Key) -> Path:
        """Where the content of `key` lies; its manifest and seal lie beside it as `.json` and `.hmac`."""
        return self.folder / f"{hashlib.sha256(_canonical(key)).hexdigest()}.plan"

    def _verified(self, key: Key) -> bytes:
        path = self.path(key)
        seal = _read(path.with_suffix(".hmac"), limit=64)
        manifest = _read(path.with_suffix(".json"), limit=MAX_MANIFEST_BYTES)
        if not hmac.compare_digest(seal, self._seal(manifest)):
            raise _Refused("its manifest was altered, or made elsewhere")
        stated = json.loads(manifest)
        if stated.get("schema_version") != SCHEMA_VERSION or stated.get("key") != dict(key):
            raise _Refused("made by another version, or for another key")
        content = _read(path, limit=stated["size"])
        if len(content) != stated["size"] or hashlib.sha256(content).hexdigest() != stated["sha256"]:
            raise _Refused("damaged or truncated")
        return content

    def _write(self, key: Key, content: bytes) -> None:
        """Content first, seal last: a crash in between leaves an entry whose seal does not hold."""
        path = self.path(key)
        manifest = _canonical(
            {
                "schema_version": SCHEMA_VERSION,
                "key": dict(key),
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        _replace(path, content)
        _replace(path.with_suffix(".json"), manifest)
        _replace(path.with_suffix(".hmac"), self._seal(manifest))

    def _seal(self, manifest: bytes) -> bytes:
        return hmac.digest(self._secret, manifest, "sha256").hex().encode("ascii")

    def _own_secret(self) -> bytes:
        """Read the key of the seals, or make it; one that others could read or set is replaced."""
        path = self.folder / _SECRET
        with self._locked(_SECRET):
            try:
                secret = _read(path, limit=_SECRET_BYTES, private=True)
            except (_Refused, FileNotFoundError):
                secret = b""
            if len(secret) != _SECRET_BYTES:
                secret = secrets.token_bytes(_SECRET_BYTES)
                _replace(path, secret)
        return secret

    @contextmanager
    def _locked(self, name: str, progress: Progress | None = None) -> Iterator[None]:
        """Hold a lock file; the kernel frees it when the process ends, however it ends."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        handle = os.open(self.folder / f"{name}.lock", flags, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if progress:
                    progress("waiting for another process that builds the same plan", 0, 1)
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _canonical(value: object) -> bytes:
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, sort_keys=True).encode("ascii")


def _read(path: Path, *, limit: int, private: bool = False) -> bytes:
    """Read a regular file of this user's own of at most `limit` bytes, never through a link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Refused(f"{path.name} cannot be read: {error.strerror}") from error
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        forbidden = 0o077 if private else 0o022
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & forbidden:
            raise _Refused(f"{path.name} is not a private file")
        if found.st_size > limit:
            raise _Refused(f"{path.name} is larger than {limit} bytes")
        return file.read(limit + 1)


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that its name holds either all of the old or all of the new content, even after a crash."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, _NEW_FILE, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
