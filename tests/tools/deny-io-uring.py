"""Runs a program under a seccomp filter that denies io_uring with EPERM, as container runtimes do.

usage: deny-io-uring.py PROGRAM [ARGUMENT...]
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_NUMBER, RETURN, JUMP_IF_AT_LEAST, JUMP_IF_ABOVE = 0x20, 0x06, 0x35, 0x25
ALLOW, REFUSE_EPERM = 0x7FFF0000, 0x00050001
# io_uring_setup, io_uring_enter and io_uring_register have these numbers on every architecture.
FIRST, LAST = 425, 427


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def instruction(code, jump_true, jump_false, operand):
    return struct.pack("HBBI", code, jump_true, jump_false, operand)


rules = [
    instruction(LOAD_NUMBER, 0, 0, 0),
    instruction(JUMP_IF_AT_LEAST, 0, 2, FIRST),
    instruction(JUMP_IF_ABOVE, 1, 0, LAST),
    instruction(RETURN, 0, 0, REFUSE_EPERM),
    instruction(RETURN, 0, 0, ALLOW),
]
program = Program(len(rules), b"".join(rules))
libc = ctypes.CDLL(None, use_errno=True)
for arguments in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))]:
    if libc.prctl(*arguments) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
