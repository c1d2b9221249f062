"""Runs a program with listening sockets, as a service manager passes them (sd_listen_fds(3)).

usage: pass-sockets.py NAME=ADDRESS:PORT... -- PROGRAM [ARGUMENT...]
"""

import os
import socket
import sys

# SD_LISTEN_FDS_START
FIRST = 3

end = sys.argv.index("--")
names, sockets = [], []
for argument in sys.argv[1:end]:
    name, _, address = argument.partition("=")
    host, _, port = address.rpartition(":")
    # Like systemd's default: blocking, without SO_REUSEPORT.
    listening = socket.create_server((host, int(port)), backlog=1024)
    names.append(name)
    # Keep the target descriptors free.
    sockets.append(os.dup2(listening.fileno(), 100 + len(sockets)))
for number, descriptor in enumerate(sockets):
    os.dup2(descriptor, FIRST + number)
    os.close(descriptor)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
