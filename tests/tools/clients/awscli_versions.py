"""Flows of the AWS CLI with versions and object lock."""

import json
import os

import flows
from flows import BUCKET, DIRECTORY, KEY, OTHER_KEY, SMALL, CommandFailed, date, feature, in_days, refused

LOCKED = f"{BUCKET}-locked"
os.environ["AWS_CA_BUNDLE"] = flows.CA_BUNDLE
FILES = {name: flows.file(name, contents) for name, contents in [("one", b"one"), ("two", b"two"), ("small", SMALL)]}
KEYS = {key: flows.file(f"key-{n}", key) for n, key in enumerate([KEY, OTHER_KEY])}


def s3api(operation, *arguments):
    line = [flows.PROGRAM, "--endpoint-url", flows.ENDPOINT, "--output=json", "s3api", operation]
    printed = flows.command([*line, *map(str, arguments)])
    return json.loads(printed) if printed.strip() else {}


def put(bucket, key, file, *arguments):
    return s3api("put-object", "--bucket", bucket, "--key", key, "--body", file, *arguments)["VersionId"]


def got(bucket, key, *arguments):
    there = DIRECTORY / "got"
    s3api("get-object", "--bucket", bucket, "--key", key, *arguments, there)
    return there.read_bytes()


def delete(bucket, key, *arguments):
    return s3api("delete-object", "--bucket", bucket, "--key", key, *arguments)


def code(act):
    return next(word for word in str(refused(CommandFailed, act)).split() if word[0] == "(").strip("()")


def sse(key):
    return ["--sse-customer-algorithm=AES256", "--sse-customer-key", f"fileb://{KEYS[key]}"]


@feature("versions")
def versions_of_object():
    s3api("create-bucket", "--bucket", BUCKET)
    s3api("put-bucket-versioning", "--bucket", BUCKET, "--versioning-configuration=Status=Enabled")
    assert s3api("get-bucket-versioning", "--bucket", BUCKET) == {"Status": "Enabled"}
    ids = [put(BUCKET, "object", FILES[name]) for name in ["one", "two"]]
    listed = s3api("list-object-versions", "--bucket", BUCKET, "--prefix=object")["Versions"]
    assert [version["VersionId"] for version in listed] == ids[::-1], listed
    assert got(BUCKET, "object", "--version-id", ids[0]) == b"one"
    assert got(BUCKET, "object") == b"two"


@feature("SSE-C versions")
def sse_c_versions():
    first = put(BUCKET, "sealed", FILES["small"], *sse(KEY))
    put(BUCKET, "sealed", FILES["one"], *sse(OTHER_KEY))
    assert got(BUCKET, "sealed", "--version-id", first, *sse(KEY)) == SMALL
    assert got(BUCKET, "sealed", *sse(OTHER_KEY)) == b"one"


@feature("delete markers")
def delete_markers():
    put(BUCKET, "deleted", FILES["small"])
    marker = delete(BUCKET, "deleted")
    assert marker["DeleteMarker"], marker
    assert code(lambda: got(BUCKET, "deleted")) == "NoSuchKey"
    delete(BUCKET, "deleted", "--version-id", marker["VersionId"])
    assert got(BUCKET, "deleted") == SMALL


@feature("deletion of a version")
def deletion():
    put(BUCKET, "two", FILES["one"])
    delete(BUCKET, "two", "--version-id", put(BUCKET, "two", FILES["two"]))
    assert got(BUCKET, "two") == b"one"


@feature("retention")
def retention():
    s3api("create-bucket", "--bucket", LOCKED, "--object-lock-enabled-for-bucket")
    lock = ["--object-lock-mode=COMPLIANCE", "--object-lock-retain-until-date", date(in_days(2))]
    version = put(LOCKED, "kept", FILES["small"], *lock)
    assert code(lambda: delete(LOCKED, "kept", "--version-id", version)) == "AccessDenied"
    name = ["--bucket", LOCKED, "--key", "kept"]
    for days, is_later in [(1, False), (3, True)]:
        change = ["--retention", f"Mode=COMPLIANCE,RetainUntilDate={date(in_days(days))}"]
        if is_later:
            s3api("put-object-retention", *name, *change)
        else:
            assert code(lambda: s3api("put-object-retention", *name, *change)) == "AccessDenied"
    assert s3api("get-object-retention", *name)["Retention"]["Mode"] == "COMPLIANCE"


@feature("legal hold")
def legal_hold():
    version = put(LOCKED, "held", FILES["small"])
    name = ["--bucket", LOCKED, "--key", "held"]
    s3api("put-object-legal-hold", *name, "--legal-hold=Status=ON")
    assert s3api("get-object-legal-hold", *name)["LegalHold"]["Status"] == "ON"
    assert code(lambda: delete(LOCKED, "held", "--version-id", version)) == "AccessDenied"
    s3api("put-object-legal-hold", *name, "--legal-hold=Status=OFF")
    delete(LOCKED, "held", "--version-id", version)


@feature("default retention")
def default_retention():
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    s3api("put-object-lock-configuration", "--bucket", LOCKED, "--object-lock-configuration", json.dumps(rule))
    assert s3api("get-object-lock-configuration", "--bucket", LOCKED)["ObjectLockConfiguration"] == rule
    lock = put(LOCKED, "default", FILES["small"], "--checksum-algorithm=CRC32")
    assert code(lambda: delete(LOCKED, "default", "--version-id", lock)) == "AccessDenied"
    delete(LOCKED, "default", "--version-id", lock, "--bypass-governance-retention")


flows.unsupported("backups")
flows.run()
