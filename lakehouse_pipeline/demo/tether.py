"""Commands that end with the process that starts them, however that ends: also a script, of the standard library alone.

python tether.py SIGNAL PARENT COMMAND…

Linux sends the signal once the thread that started the script is gone; elsewhere the command just runs.
"""

import ctypes
import os
import signal as signals
import sys
from collections.abc import Sequence
from signal import Signals

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; exec keeps it, so that the command takes this script's place


def tethered(command: Sequence[str], signal: Signals) -> list[str]:
    """Give what runs a command so that it gets the signal when this process ends."""
    return [sys.executable, "-I", "-S", __file__, str(signal.value), str(os.getpid()), *command]


def main(signal: int, parent: int, command: list[str]) -> None:
    """Become the command."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(1)
    # A shell's background job ignores Ctrl-C, and so would the command and all that it starts, sent by whomever.
    signals.signal(signals.SIGINT, signals.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  # our own arguments


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
