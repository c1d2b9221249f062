"""Restarts a program five times on one listening socket, while clients connect without a pause.

Every client must get a reply.

usage: restart-on-shared-socket.py PROGRAM [ARGUMENT...]
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

RUNS, CLIENTS = 5, 4

listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
address = listening.getsockname()
replies, failures, is_over = [0], [], threading.Event()


def ask():
    while not is_over.is_set():
        try:
            with socket.create_connection(address, timeout=60) as tcp:
                tcp.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                reply = tcp.recv(100)
            if not reply.startswith(b"HTTP/1.1 403"):
                failures.append(repr(reply))
        except OSError as error:
            failures.append(repr(error))
        replies[0] += 1


def start():
    shell = 'exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec "$@"'
    return subprocess.Popen(["sh", "-c", shell, "sh", *sys.argv[1:]], stdin=listening)


clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
for client in clients:
    client.start()
for run in range(RUNS):
    node = start()
    before = replies[0]
    # Stop the node under load.
    while replies[0] < before + 200 and node.poll() is None:
        time.sleep(0.01)
    os.kill(node.pid, signal.SIGTERM)
    if node.wait(60) != 0:
        failures.append(f"run {run}: exit code {node.returncode}")
        break
node = start()
is_over.set()
for client in clients:
    client.join()
node.terminate()
node.wait()
print(f"{replies[0]} replies, failures: {failures[:10]}")
sys.exit(1 if failures else 0)
