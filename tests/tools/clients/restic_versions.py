"""Flows of restic on a bucket with versions and default retention. restic itself knows neither."""

import os

import boto3

import flows
from flows import BUCKET, DIRECTORY, SMALL, CommandFailed, feature, refused

s3 = boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE)
os.environ["RESTIC_PASSWORD"] = "a password of the repository"


def restic(*arguments):
    line = [flows.PROGRAM, "--cacert", flows.CA_BUNDLE, "--repo", f"s3:{flows.ENDPOINT}/{BUCKET}/repository"]
    return flows.command([*line, "--no-cache", "--json", *map(str, arguments)]).decode()


for missing in ["versions", "SSE-C versions", "delete markers", "deletion of a version", "retention", "legal hold"]:
    flows.unsupported(missing)


@feature("default retention")
def default_retention():
    s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    flows.lock_by_default(s3, BUCKET)
    restic("init")
    kept = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    for version in kept:
        head = s3.head_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
        assert head["ObjectLockMode"] == "COMPLIANCE", version
    assert any(version["Key"].endswith("config") for version in kept)


@feature("backups")
def backups():
    """A repository whose objects were all deleted is as before once the delete markers are gone."""
    tree = DIRECTORY / "tree"
    for n in range(5):
        flows.file(f"tree/file {n}", SMALL[n:])
    restic("backup", tree)
    flows.file("tree/file 0", b"changed")
    restic("backup", tree)
    restic("forget", "--keep-last=1", "--prune")
    restic("check", "--read-data")
    present = {version["Key"] for version in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    for key in present:
        s3.delete_object(Bucket=BUCKET, Key=key)
    refused(CommandFailed, lambda: restic("snapshots"))
    for marker in s3.list_object_versions(Bucket=BUCKET)["DeleteMarkers"]:
        if marker["Key"] in present:
            s3.delete_object(Bucket=BUCKET, Key=marker["Key"], VersionId=marker["VersionId"])
    restic("check", "--read-data")
    restic("restore", "latest", "--target", DIRECTORY / "restored")
    restored = DIRECTORY / "restored" / tree.relative_to("/")
    flows.command(["diff", "-r", tree, restored])


flows.run()
