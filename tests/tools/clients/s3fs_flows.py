"""Flows of s3fs, which mounts a bucket with or without a key."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import boto3

import flows
from flows import BUCKET, DIRECTORY, KEY, LARGE, MANY, MANY_COUNT, OTHER_KEY, SMALL, feature

TIMEOUT_S = 30
# s3fs cannot create buckets.
boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE).create_bucket(Bucket=BUCKET)


def private(name, contents):
    path = flows.file(name, contents.encode())
    path.chmod(0o600)
    return path


PASSWORD = private("password", f"{flows.ACCESS_KEY}:{flows.SECRET_KEY}\n")


@contextlib.contextmanager
def mounted(bucket, key=None):
    """Mounts a bucket with or without a key, and without the cache of earlier mounts."""
    at = DIRECTORY / "mount"
    at.mkdir(exist_ok=True)
    options = f"passwd_file={PASSWORD},url={flows.ENDPOINT},use_path_request_style,endpoint={flows.REGION}"
    options += ",multipart_size=5"
    if key:
        path = private("key", flows.text(key) + "\n")
        # With mixed uploads, version 1.90 sends the key with the parts but not with the creation of
        # the upload.
        options += f",use_sse=custom:{path},nomixupload"
    environment = {**os.environ, "CURL_CA_BUNDLE": flows.CA_BUNDLE}
    with open(DIRECTORY / "log", "wb") as log:
        arguments = [flows.PROGRAM, bucket, at, "-f", "-o", options]
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
    try:
        began = time.monotonic()
        while not os.path.ismount(at):
            ended = process.poll() is not None or time.monotonic() - began > TIMEOUT_S
            assert not ended, (DIRECTORY / "log").read_text()
            time.sleep(0.02)
        yield at
    finally:
        # s3fs unmounts on SIGTERM, but not after a failure.
        process.terminate()
        process.wait(TIMEOUT_S)
        if f" {at} " in Path("/proc/self/mounts").read_text():
            subprocess.run(["fusermount", "-u", "-z", at], check=True)


def round_trip(name, contents, key=None):
    """Writes a file, and checks that a new mount of the bucket has it."""
    with mounted(BUCKET, key) as at:
        (at / name).write_bytes(contents)
    with mounted(BUCKET, key) as at:
        assert (at / name).read_bytes() == contents


flows.unsupported("buckets")


@feature("objects")
def objects():
    with mounted(BUCKET) as at:
        (at / "directory").mkdir()
        (at / "directory/öbject").write_bytes(SMALL)
        (at / "directory/öbject").chmod(0o640)
    with mounted(BUCKET) as at:
        stat = (at / "directory/öbject").stat()
        assert (stat.st_size, stat.st_mode & 0o777) == (len(SMALL), 0o640)
        assert (at / "directory/öbject").read_bytes() == SMALL
        (at / "directory/öbject").unlink()
        (at / "directory").rmdir()
        assert list(at.iterdir()) == []


@feature("multipart upload")
def multipart():
    round_trip("parts", LARGE)


@feature("SSE-C objects")
def sse_c():
    round_trip("sealed", SMALL, KEY)


@feature("wrong SSE-C key")
def wrong_key():
    with mounted(BUCKET, OTHER_KEY) as at:
        # s3fs shows the node's 403 this way; only root may open the file.
        assert (at / "sealed").stat().st_mode & 0o777 == 0 and (at / "sealed").read_bytes() == b""
    return "an empty file without permissions"


@feature("SSE-C multipart upload")
def sse_c_multipart():
    round_trip("sealed parts", LARGE, KEY)


@feature("range")
def ranges():
    with mounted(BUCKET, KEY) as at, open(at / "sealed parts", "rb") as file:
        file.seek(5242000)
        assert file.read(2000) == LARGE[5242000:5244000]


@feature("copy")
def copy():
    with mounted(BUCKET, KEY) as at:
        (at / "sealed parts").rename(at / "sealed moved")
        assert (at / "sealed moved").read_bytes() == LARGE and not (at / "sealed parts").exists()
    return "to rename"


@feature("copy with another SSE-C key")
def copy_with_another_key():
    with mounted(BUCKET, KEY) as at:
        contents = (at / "sealed").read_bytes()
    assert contents == SMALL
    round_trip("copied", contents, OTHER_KEY)
    return "through two mounts"


@feature("list in pages")
def pages():
    with mounted(MANY) as at:
        assert len(os.listdir(at / "many")) == MANY_COUNT
        assert sorted(os.listdir(at)) == ["many", "one"]


@feature("delete many")
def delete_many():
    with mounted(MANY) as at:
        for path in (at / "many").iterdir():
            path.unlink()
    with mounted(MANY) as at:
        assert [name for name in os.listdir(at) if name != "many"] == ["one"]
    return "one by one"


for name in ["presigned URL", "tags", "checksums", "sync"]:
    flows.unsupported(name)
flows.run()
