"""Named places in which a test can end the process as a power cut would."""

import os
import signal

VARIABLE = "LITHOSTREAM_FAILPOINT"
NAMES = ("files-written", "folder-renamed", "section-marked", "record-written")


def reach(name: str) -> None:
    """End the process with SIGKILL where the environment names this place; otherwise do nothing."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
