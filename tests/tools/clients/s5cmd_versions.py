"""Flows of s5cmd with versions. It has no customer keys and no object lock."""

import boto3

import flows
from flows import BUCKET, DIRECTORY, LARGE, SMALL, CommandFailed, feature, refused

LOCKED = f"{BUCKET}-locked"
s3 = boto3.client("s3", endpoint_url=flows.ENDPOINT)


def s5cmd(*arguments):
    return flows.command([flows.PROGRAM, "--endpoint-url", flows.ENDPOINT, *map(str, arguments)]).decode()


def listed(*arguments):
    """Returns the last words of the lines of a listing: names, or names and versions."""
    return [line.split()[-2:] for line in s5cmd("ls", *arguments).splitlines()]


@feature("versions")
def versions():
    s5cmd("mb", f"s3://{BUCKET}")
    s5cmd("bucket-version", "--set=Enabled", f"s3://{BUCKET}")
    assert "Enabled" in s5cmd("bucket-version", f"s3://{BUCKET}")
    for body in [SMALL, LARGE]:
        s5cmd("cp", flows.file("object", body), f"s3://{BUCKET}/object")
    found = listed("--all-versions", f"s3://{BUCKET}/object")
    assert len(found) == 2, found
    ids = [version["VersionId"] for version in s3.list_object_versions(Bucket=BUCKET, Prefix="object")["Versions"]]
    assert sorted(version for _, version in found) == sorted(ids), found
    s5cmd("cp", "--version-id", ids[1], f"s3://{BUCKET}/object", DIRECTORY / "old")
    assert (DIRECTORY / "old").read_bytes() == SMALL
    sizes = s5cmd("du", "--all-versions", f"s3://{BUCKET}/object")
    assert str(len(SMALL) + len(LARGE)) in sizes, sizes


flows.unsupported("SSE-C versions")


@feature("delete markers")
def delete_markers():
    s5cmd("cp", flows.file("object", SMALL), f"s3://{BUCKET}/deleted")
    s5cmd("rm", f"s3://{BUCKET}/deleted")
    refused(CommandFailed, lambda: s5cmd("cat", f"s3://{BUCKET}/deleted"))
    [marker] = s3.list_object_versions(Bucket=BUCKET, Prefix="deleted")["DeleteMarkers"]
    s5cmd("rm", "--version-id", marker["VersionId"], f"s3://{BUCKET}/deleted")
    s5cmd("cp", f"s3://{BUCKET}/deleted", DIRECTORY / "restored")
    assert (DIRECTORY / "restored").read_bytes() == SMALL


@feature("deletion of a version")
def deletion():
    s5cmd("rm", "--all-versions", f"s3://{BUCKET}/*")
    found = s3.list_object_versions(Bucket=BUCKET)
    assert "Versions" not in found and "DeleteMarkers" not in found, found
    s5cmd("rb", f"s3://{BUCKET}")
    return "of one, or of all"


@feature("retention")
def retention():
    """Versions that another client has locked stay."""
    s3.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    flows.lock_by_default(s3, LOCKED)
    version = s3.put_object(Bucket=LOCKED, Key="kept", Body=SMALL)["VersionId"]
    message = str(refused(CommandFailed, lambda: s5cmd("rm", "--all-versions", f"s3://{LOCKED}/*")))
    assert "object protected by object lock" in message, message
    s5cmd("cp", "--version-id", version, f"s3://{LOCKED}/kept", DIRECTORY / "kept")
    assert (DIRECTORY / "kept").read_bytes() == SMALL
    return "that others set"


for missing in ["legal hold", "default retention", "backups"]:
    flows.unsupported(missing)
flows.run()
