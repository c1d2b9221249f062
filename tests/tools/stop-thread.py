"""Stops one thread of a process, and resumes it at the end of standard input.

usage: stop-thread.py PID NAME
"""

import ctypes
import os
import pathlib
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
# `__WALL`: also wait for threads.
WAIT_ALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")


tasks = pathlib.Path(f"/proc/{sys.argv[1]}/task")
[thread] = [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == sys.argv[2]]
ptrace(PTRACE_SEIZE, thread)
ptrace(PTRACE_INTERRUPT, thread)
os.waitpid(thread, WAIT_ALL)
print("stopped", flush=True)
sys.stdin.read()
ptrace(PTRACE_DETACH, thread)
