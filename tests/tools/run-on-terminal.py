"""Runs a command on a terminal and copies what it shows to standard output.

SIGTERM is passed on to the command; its exit code becomes the tool's own.
"""

import os
import pty
import signal
import sys

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
while True:
    try:
        shown = os.read(terminal, 4096)
    except OSError:
        # The command has closed the terminal.
        break
    if not shown:
        break
    try:
        os.write(1, shown.replace(b"\r\n", b"\n"))
    except BrokenPipeError:
        pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
