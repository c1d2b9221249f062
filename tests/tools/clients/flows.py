"""Common parts of the client flows: the node and the data from the environment, a line per feature.

The flows of a client are functions with `@feature(NAME)`, run in the order of their definition. Each
prints `ok NAME: NOTE`, or `unsupported NAME: NOTE` if the client lacks the feature. A failure prints
a traceback and ends with exit code 1.
"""

import base64
import os
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

ENDPOINT = os.environ["ENDPOINT"]
# A file of certificates to trust for HTTPS.
CA_BUNDLE = os.environ.get("CA_BUNDLE")
ACCESS_KEY, SECRET_KEY = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
REGION = os.environ["AWS_DEFAULT_REGION"]
# The client's own bucket, not created yet.
BUCKET = os.environ["BUCKET"]
# A bucket with MANY_COUNT objects below `many/`, more than fit in a page, and one elsewhere.
MANY, MANY_COUNT = os.environ.get("MANY"), int(os.environ.get("MANY_COUNT", 0))
PROGRAM = os.environ.get("PROGRAM")

KEY, OTHER_KEY = os.urandom(32), os.urandom(32)
SMALL = os.urandom(100_000)
LARGE = os.urandom(12 << 20)
PART_LEN = 5 << 20

_directory = tempfile.TemporaryDirectory()
DIRECTORY = Path(_directory.name)
_flows = []


def feature(name):
    def keep(flow):
        _flows.append(("ok", name, flow))

    return keep


def unsupported(name, note=""):
    _flows.append(("unsupported", name, lambda: note))


def run():
    for outcome, name, flow in _flows:
        note = flow()
        print(f"{outcome} {name}: {note}" if note else f"{outcome} {name}", flush=True)


def wait_for_next_second():
    """Waits until a new object has another time than the last one, for clients that count in seconds."""
    time.sleep(1.1)


def in_days(days):
    """Returns the moment after so many days, in whole seconds."""
    return (datetime.now(timezone.utc) + timedelta(days=days)).replace(microsecond=0)


def date(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def lock_by_default(s3, bucket):
    """Sets a default COMPLIANCE retention of a day with a boto3 client, and returns the configuration."""
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=configuration)
    return configuration


def text(key):
    return base64.b64encode(key).decode()


def file(name, contents):
    path = DIRECTORY / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    return path


def refused(expected, act):
    """Returns the error of the expected type that `act` must raise."""
    try:
        act()
    except expected as error:
        return error
    raise AssertionError(f"no {expected.__name__} was raised")


def fetch(url, headers=(), method="GET", body=None):
    """Sends a request without credentials and returns status and body."""
    context = ssl.create_default_context(cafile=CA_BUNDLE) if CA_BUNDLE else None
    request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class CommandFailed(Exception):
    """A command with a non-zero exit code, and its output."""


def command(arguments, stdin=None):
    """Runs a command and returns its standard output."""
    done = subprocess.run(arguments, input=stdin, capture_output=True, cwd=DIRECTORY)
    if done.returncode:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise CommandFailed(f"{arguments}: {done.returncode}: {output}")
    return done.stdout
