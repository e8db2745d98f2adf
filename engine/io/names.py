"""Names that are safe as folder names everywhere, and paths that stay where they belong."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PureWindowsPath

MAX_CHARS = 100  # leaves room for suffixes within the 255 bytes of every common file system
_HASH_CHARS = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=@-]+")
_RESERVED = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|quarantine", re.IGNORECASE
)  # devices on Windows; our own folder


def safe_name(text: str) -> str:
    """Turn any text into one file name component.

    A text that is already safe comes back unchanged. Any other is reduced to ASCII letters, digits and
    `._+=@-`, and carries a hash of the original, so that two different texts do not become one name.

    Returns
    -------
    str
        1 to 100 characters: no separator, no `..`, no NUL, not hidden, not a Windows device name.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    name = re.sub(r"\.{2,}", ".", _UNSAFE.sub("_", plain)).strip("._-")
    if _RESERVED.fullmatch(name):
        name = f"section_{name}"
    if name == text and 0 < len(name) <= MAX_CHARS:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
    kept = name[: MAX_CHARS - _HASH_CHARS - 1].rstrip("._-") or "section"
    return f"{kept}-{digest}"


def unique_names(texts: Iterable[str]) -> list[str]:
    """Make safe names that differ even where case is ignored.

    The first of several equal names keeps it; the next become `name-2`, `name-3`, in the order given.
    """
    taken: set[str] = set()
    names = []
    for text in texts:
        name, count = safe_name(text), 1
        while name.casefold() in taken:
            count += 1
            name = f"{safe_name(text)[: MAX_CHARS - 5]}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def leaves_folder(text: str) -> bool:
    """Tell whether a written path is absolute, climbs with `..`, or holds a NUL, on any system."""
    path = PureWindowsPath(text)
    return bool(path.drive or path.root) or ".." in path.parts or "\0" in text
