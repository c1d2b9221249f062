"""Many clients at once, each with its SDK's defaults: every one puts an object under a key of its own, and gets it.

The node and the credential are in the environment; arguments: a bucket, how many clients, how many bytes each. Prints how often
requests were repeated, and by which errors.
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
# A common body: the objects differ in key and thus in ciphertext.
body = os.urandom(1 << 20) * (size >> 20)
digest = hashlib.sha256(body).digest()
repeated, failed, lock = collections.Counter(), [], threading.Lock()
begin = {phase: threading.Barrier(clients + 1) for phase in ("put", "get")}


def why(attempts, response, caught_exception, **_):
    """Notes what an attempt came to, where that was no success; the SDK's own handler decides what follows."""
    if caught_exception is not None:
        name = type(caught_exception).__name__
    elif response is not None and response[0].status_code >= 400:
        name = response[1]["Error"]["Code"]
        if name == "SlowDown":
            assert response[1]["ResponseMetadata"]["HTTPHeaders"].get("retry-after"), "no Retry-After"
    else:
        return
    with lock:
        repeated[name] += 1


def get(s3, sse, key):
    taken = hashlib.sha256()
    for piece in s3.get_object(Bucket=bucket, Key=key, **sse)["Body"].iter_chunks(1 << 20):
        taken.update(piece)
    assert taken.digest() == digest, "other bytes"


def run(number):
    session = boto3.session.Session()
    s3 = session.client("s3", endpoint_url=os.environ["ENDPOINT"])
    s3.meta.events.register_first("needs-retry.s3", why)
    key, sse = f"crowd/{number}", {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": os.urandom(32)}
    for phase, act in [
        ("put", lambda: s3.put_object(Bucket=bucket, Key=key, Body=io.BytesIO(body), **sse)),
        ("get", lambda: get(s3, sse, key)),
    ]:
        begin[phase].wait()
        try:
            act()
        except Exception as error:  # noqa: BLE001: whatever it was, this client has not finished
            with lock:
                failed.append(f"{phase} by client {number}: {error!r}")


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
print(f"ended at {time.monotonic():.1f} s; repeated: {dict(repeated)}")
if failed:
    sys.exit("\n".join(failed))
