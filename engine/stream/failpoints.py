"""Named places in which a test can end the process as a power cut would, fill its disk, or hold it."""

import errno
import itertools
import os
import signal
import time
from collections import defaultdict

VARIABLE = "LITHOSTREAM_FAILPOINT"
"""`NAME`: SIGKILL there. `NAME=full`: no space left on the device. `NAME=hold`: wait there for a minute. `NAME@3`,
`NAME=full@3`: at the third time."""

NAMES = ("window-done", "files-written", "folder-renamed", "section-marked", "record-written")
HOLD_S = 60.0

_times: defaultdict[str, "itertools.count[int]"] = defaultdict(lambda: itertools.count(1))


def reach(name: str) -> None:
    """End the process with SIGKILL, fail or wait, where the environment names this place; otherwise do nothing."""
    stated = os.environ.get(VARIABLE)
    if stated is None:
        return
    place, _, times = stated.partition("@")
    place, _, action = place.partition("=")
    if place != name or next(_times[name]) != int(times or 1):
        return
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if action == "hold":
        time.sleep(HOLD_S)
    else:
        os.kill(os.getpid(), signal.SIGKILL)
