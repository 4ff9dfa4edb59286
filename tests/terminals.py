"""Programs on a real pseudo-terminal of any width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

STYLE = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]")


def on_terminal(columns, *argv, also_errors=False, **environment):
    """The lines that a program prints on a terminal of that width, without its styles.

    Of a line that is written over, only what stands at last. With `also_errors` its standard error
    is on the terminal too.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        argv,
        stdout=theirs,
        stderr=theirs if also_errors else subprocess.PIPE,
        env=kept | {"TERM": "xterm"} | environment,
    ) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # nobody has the other end any more
                break
            written += part
            if not part:
                break
        assert child.wait(60) == 0, child.stderr.read() if child.stderr else written
    os.close(ours)
    text = STYLE.sub("", written.decode()).replace("\r\n", "\n")
    return [line.rpartition("\r")[2] for line in text.splitlines()]
