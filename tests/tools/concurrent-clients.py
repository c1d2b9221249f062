"""Runs concurrent clients with the defaults of their SDK: each puts an object and gets it.

usage: concurrent-clients.py BUCKET CLIENTS BYTES

Each client has its own customer key. The node and the credential are in the environment. Prints the
number of retries by error.
"""

import collections
import hashlib
import io
import os
import sys
import threading
import time

import boto3

bucket, clients, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# One body for all: the objects differ in their keys and thus in their ciphertexts.
body = os.urandom(1 << 20) * (size >> 20)
digest = hashlib.sha256(body).digest()
retries, failures, lock = collections.Counter(), [], threading.Lock()
begin = {phase: threading.Barrier(clients + 1) for phase in ("put", "get")}


def count_failure(attempts, response, caught_exception, **_):
    """Counts a failed attempt by its error; the handler of the SDK decides about a retry."""
    if caught_exception is not None:
        name = type(caught_exception).__name__
    elif response is not None and response[0].status_code >= 400:
        name = response[1]["Error"]["Code"]
        if name == "SlowDown":
            assert response[1]["ResponseMetadata"]["HTTPHeaders"].get("retry-after"), "no Retry-After"
    else:
        return
    with lock:
        retries[name] += 1


def get(s3, sse, key):
    received = hashlib.sha256()
    for piece in s3.get_object(Bucket=bucket, Key=key, **sse)["Body"].iter_chunks(1 << 20):
        received.update(piece)
    assert received.digest() == digest, "wrong bytes"


def run(number):
    session = boto3.session.Session()
    s3 = session.client("s3", endpoint_url=os.environ["ENDPOINT"])
    s3.meta.events.register_first("needs-retry.s3", count_failure)
    key, sse = f"concurrent/{number}", {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": os.urandom(32)}
    for phase, act in [
        ("put", lambda: s3.put_object(Bucket=bucket, Key=key, Body=io.BytesIO(body), **sse)),
        ("get", lambda: get(s3, sse, key)),
    ]:
        begin[phase].wait()
        try:
            act()
        except Exception as error:  # noqa: BLE001: any exception is a failure of this client
            with lock:
                failures.append(f"{phase} by client {number}: {error!r}")


# Creating sessions is not thread-safe.
boto3.setup_default_session()
threads = [threading.Thread(target=run, args=[number]) for number in range(clients)]
for thread in threads:
    thread.start()
for phase in ("put", "get"):
    begin[phase].wait()
    print(f"{phase} begun at {time.monotonic():.1f} s", flush=True)
for thread in threads:
    thread.join()
print(f"ended at {time.monotonic():.1f} s; retries: {dict(retries)}")
if failures:
    sys.exit("\n".join(failures))
