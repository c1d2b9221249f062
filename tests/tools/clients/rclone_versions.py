"""Flows of rclone with versions and object lock, which need rclone 1.74 or later."""

import datetime
import json

import boto3

import flows
from flows import BUCKET, DIRECTORY, KEY, LARGE, OTHER_KEY, SMALL, CommandFailed, feature, refused

REMOTE = f"""type = s3
provider = Other
endpoint = {flows.ENDPOINT}
region = {flows.REGION}
env_auth = true
object_lock_supported = true
"""
CONFIG = flows.file(
    "rclone.conf",
    f"""[plain]
{REMOTE}
[sealed]
{REMOTE}sse_customer_algorithm = AES256
sse_customer_key_base64 = {flows.text(KEY)}

[other]
{REMOTE}sse_customer_algorithm = AES256
sse_customer_key_base64 = {flows.text(OTHER_KEY)}
""".encode(),
)
LOCKED = f"{BUCKET}-locked"
# rclone does not show what these check.
s3 = boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE)


def rclone(*arguments):
    common = ["--config", CONFIG, "--ca-cert", flows.CA_BUNDLE, "--retries=1", "--low-level-retries=1"]
    return flows.command([flows.PROGRAM, *common, *map(str, arguments)])


def put(remote, contents, *arguments):
    rclone("copyto", "--ignore-times", *arguments, flows.file("contents", contents), remote)


def versions(bucket, key):
    return s3.list_object_versions(Bucket=bucket, Prefix=key).get("Versions", [])


def old_name(bucket, key):
    """Returns the name that rclone gives to the noncurrent version of an object."""
    [name] = [name for name in rclone("lsf", "--s3-versions", f"{bucket}").decode().splitlines() if f"{key}-v" in name]
    return name


@feature("versions")
def versions_of_object():
    rclone("mkdir", f"plain:{BUCKET}")
    rclone("backend", "versioning", f"plain:{BUCKET}", "Enabled")
    assert b"Enabled" in rclone("backend", "versioning", f"plain:{BUCKET}")
    put(f"plain:{BUCKET}/object", b"one")
    between = datetime.datetime.now(datetime.timezone.utc)
    flows.wait_for_next_second()
    put(f"plain:{BUCKET}/object", b"two")
    assert rclone("cat", f"plain:{BUCKET}/object") == b"two"
    old = old_name(f"plain:{BUCKET}", "object")
    assert rclone("cat", "--s3-versions", f"plain:{BUCKET}/{old}") == b"one"
    at = between.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert rclone("cat", f"--s3-version-at={at}", f"plain:{BUCKET}/object") == b"one"
    # To another directory, where only the old one is to be.
    rclone("copy", f"--s3-version-at={at}", f"plain:{BUCKET}", DIRECTORY / "yesterday")
    assert (DIRECTORY / "yesterday/object").read_bytes() == b"one"


@feature("SSE-C versions")
def sse_c_versions():
    put(f"sealed:{BUCKET}/keys/sealed", SMALL)
    # rclone reads an object before it replaces it, so the one with the former key is deleted.
    rclone("deletefile", f"sealed:{BUCKET}/keys/sealed")
    flows.wait_for_next_second()
    put(f"other:{BUCKET}/keys/sealed", LARGE)
    assert rclone("cat", f"other:{BUCKET}/keys/sealed") == LARGE
    old = old_name(f"sealed:{BUCKET}/keys", "sealed")
    assert rclone("cat", "--s3-versions", f"sealed:{BUCKET}/keys/{old}") == SMALL


@feature("delete markers")
def delete_markers():
    put(f"plain:{BUCKET}/gone/deleted", SMALL)
    rclone("deletefile", f"plain:{BUCKET}/gone/deleted")
    assert rclone("lsf", f"plain:{BUCKET}/gone") == b""
    old = old_name(f"plain:{BUCKET}/gone", "deleted")
    rclone("copyto", "--s3-versions", f"plain:{BUCKET}/gone/{old}", DIRECTORY / "restored")
    assert (DIRECTORY / "restored").read_bytes() == SMALL


@feature("deletion of a version")
def deletion():
    rclone("backend", "cleanup-hidden", f"plain:{BUCKET}")
    assert [version["IsLatest"] for version in versions(BUCKET, "object")] == [True]
    assert rclone("cat", f"plain:{BUCKET}/object") == b"two"
    return "all that are noncurrent"


@feature("retention")
def retention():
    rclone("mkdir", "--s3-bucket-object-lock-enabled", f"plain:{LOCKED}")
    until = flows.in_days(2)
    lock = ["--s3-object-lock-mode=COMPLIANCE", f"--s3-object-lock-retain-until-date={flows.date(until)}"]
    put(f"plain:{LOCKED}/kept", SMALL, *lock)
    put(f"plain:{LOCKED}/parts", LARGE, *lock, "--s3-upload-cutoff=5M", "--s3-chunk-size=5M")
    for key, contents in [("kept", SMALL), ("parts", LARGE)]:
        head = s3.head_object(Bucket=LOCKED, Key=key)
        assert head["ObjectLockMode"] == "COMPLIANCE", head
        assert head["ObjectLockRetainUntilDate"] == until
    rclone("deletefile", f"plain:{LOCKED}/kept")
    assert rclone("lsf", f"plain:{LOCKED}") == b"parts\n"
    # The marker goes, and the version that is retained stays.
    message = str(refused(CommandFailed, lambda: rclone("backend", "cleanup-hidden", f"plain:{LOCKED}")))
    assert "object protected by object lock" in message, message
    assert rclone("cat", f"plain:{LOCKED}/kept") == SMALL


@feature("legal hold")
def legal_hold():
    put(f"plain:{LOCKED}/held", SMALL, "--s3-object-lock-legal-hold-status=ON")
    assert s3.head_object(Bucket=LOCKED, Key="held")["ObjectLockLegalHoldStatus"] == "ON"
    return "at upload"


@feature("default retention")
def default_retention():
    flows.lock_by_default(s3, LOCKED)
    for key, contents in [("default/small", SMALL), ("default/large", LARGE)]:
        put(f"plain:{LOCKED}/{key}", contents, "--s3-upload-cutoff=5M", "--s3-chunk-size=5M")
        assert s3.head_object(Bucket=LOCKED, Key=key)["ObjectLockMode"] == "COMPLIANCE"


@feature("backups")
def backups():
    """A directory is synchronised twice; the state of the first time is restored."""
    tree, there = DIRECTORY / "tree", f"sealed:{LOCKED}/backup"
    for n in range(5):
        flows.file(f"tree/d{n % 2}/file {n}", SMALL[n:])
    rclone("sync", tree, there)
    before = json.loads(rclone("lsjson", "--recursive", there))
    at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    flows.wait_for_next_second()
    flows.file("tree/d0/file 0", b"encrypted by somebody else")
    (tree / "d1/file 1").unlink()
    rclone("sync", tree, there)
    restored = DIRECTORY / "restored tree"
    rclone("copy", f"--s3-version-at={at}", there, restored)
    files = sorted(path for path in restored.rglob("*") if path.is_file())
    assert len(files) == 5 == len([entry for entry in before if not entry["IsDir"]])
    assert (restored / "d0/file 0").read_bytes() == SMALL and (restored / "d1/file 1").read_bytes() == SMALL[1:]


flows.run()
