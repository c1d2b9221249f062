"""Runs a program with sockets that listen already, as a service manager hands them over (sd_listen_fds(3)).

usage: pass-sockets.py NAME=ADDRESS:PORT... -- PROGRAM [ARGUMENT...]
"""

import os
import socket
import sys

FIRST = 3

end = sys.argv.index("--")
names, sockets = [], []
for argument in sys.argv[1:end]:
    name, _, address = argument.partition("=")
    host, _, port = address.rpartition(":")
    # Like systemd's defaults: blocking, and without SO_REUSEPORT.
    listening = socket.create_server((host, int(port)), backlog=1024)
    names.append(name)
    # Keep clear of the descriptors that they are moved to.
    sockets.append(os.dup2(listening.fileno(), 100 + len(sockets)))
for number, descriptor in enumerate(sockets):
    os.dup2(descriptor, FIRST + number)
    os.close(descriptor)
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names), LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
