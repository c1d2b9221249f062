"""Flows of rclone. A remote has at most one key, so there are four, one with a key of characters."""

import json
from pathlib import Path

import boto3

import flows
from flows import BUCKET, DIRECTORY, KEY, LARGE, MANY, MANY_COUNT, OTHER_KEY, SMALL, CommandFailed, feature, refused

REMOTE = f"""type = s3
provider = Other
endpoint = {flows.ENDPOINT}
region = {flows.REGION}
env_auth = true
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

[characters]
{REMOTE}sse_customer_algorithm = AES256
sse_customer_key = 32 characters make a key as well
""".encode(),
)
PARTS = ["--s3-upload-cutoff=5M", "--s3-chunk-size=5M"]


def rclone(*arguments):
    common = ["--config", CONFIG, "--ca-cert", flows.CA_BUNDLE, "--retries=1", "--low-level-retries=1"]
    return flows.command([flows.PROGRAM, *common, *map(str, arguments)])


def names(path, *arguments):
    return rclone("lsf", *arguments, path).decode().splitlines()


@feature("buckets")
def buckets():
    rclone("mkdir", f"plain:{BUCKET}")
    rclone("mkdir", f"plain:{BUCKET}-gone")
    assert f"{BUCKET}-gone/" in names("plain:")
    rclone("rmdir", f"plain:{BUCKET}-gone")
    listed = names("plain:")
    assert f"{BUCKET}/" in listed and f"{BUCKET}-gone/" not in listed


@feature("objects")
def objects():
    rclone("copyto", flows.file("small", SMALL), f"plain:{BUCKET}/a plain/öbject")
    stat = json.loads(rclone("lsjson", "--stat", "--hash", f"plain:{BUCKET}/a plain/öbject"))
    assert stat["Size"] == len(SMALL) and stat["Hashes"]["md5"], stat
    assert rclone("cat", f"plain:{BUCKET}/a plain/öbject") == SMALL
    rclone("deletefile", f"plain:{BUCKET}/a plain/öbject")
    assert names(f"plain:{BUCKET}", "--recursive") == []


@feature("multipart upload")
def multipart():
    rclone("copyto", *PARTS, flows.file("large", LARGE), f"plain:{BUCKET}/parts")
    assert rclone("cat", f"plain:{BUCKET}/parts") == LARGE


@feature("SSE-C objects")
def sse_c():
    for remote in ["sealed", "characters"]:
        rclone("copyto", flows.file("small", SMALL), f"{remote}:{BUCKET}/{remote}")
        assert rclone("cat", f"{remote}:{BUCKET}/{remote}") == SMALL
    message = str(refused(CommandFailed, lambda: rclone("copy", "--include=/sealed", f"plain:{BUCKET}", "never")))
    assert "InvalidRequest" in message, message


@feature("wrong SSE-C key")
def wrong_key():
    message = str(refused(CommandFailed, lambda: rclone("copy", "--include=/sealed", f"other:{BUCKET}", "never")))
    assert not Path(DIRECTORY, "never").exists()
    # rclone sends HEAD for an object path, and treats any error as an empty directory.
    assert rclone("cat", f"other:{BUCKET}/sealed") == b""
    return next(word for word in message.split() if word == "AccessDenied:").rstrip(":")


@feature("SSE-C multipart upload")
def sse_c_multipart():
    large = flows.file("large", LARGE)
    rclone("copyto", *PARTS, large, f"sealed:{BUCKET}/sealed parts")
    rclone("copyto", f"sealed:{BUCKET}/sealed parts", "parts")
    assert Path(DIRECTORY, "parts").read_bytes() == LARGE
    rclone("check", "--one-way", "--include=/sealed parts", DIRECTORY, f"sealed:{BUCKET}")


@feature("range")
def ranges():
    sealed = f"sealed:{BUCKET}/sealed parts"
    assert rclone("cat", "--offset=5242000", "--count=2000", sealed) == LARGE[5242000:5244000]
    assert rclone("cat", "--tail=7", sealed) == LARGE[-7:]


@feature("copy")
def copy():
    rclone("copyto", f"plain:{BUCKET}/parts", f"plain:{BUCKET}/parts copied")
    assert rclone("cat", f"plain:{BUCKET}/parts copied") == LARGE
    rclone("copyto", f"sealed:{BUCKET}/sealed parts", f"sealed:{BUCKET}/sealed copied")
    assert rclone("cat", f"sealed:{BUCKET}/sealed copied") == LARGE


@feature("copy with another SSE-C key")
def copy_with_another_key():
    rclone("copyto", *PARTS, f"sealed:{BUCKET}/sealed parts", f"other:{BUCKET}/moved")
    assert rclone("cat", f"other:{BUCKET}/moved") == LARGE
    assert rclone("cat", f"sealed:{BUCKET}/moved") == b""
    return "through the client"


@feature("list in pages")
def pages():
    listed = names(f"plain:{MANY}/many")
    assert len(set(listed)) == len(listed) == MANY_COUNT
    assert sorted(names(f"plain:{MANY}")) == ["many/", "one"]


@feature("delete many")
def delete_many():
    rclone("purge", f"plain:{MANY}/many")
    assert names(f"plain:{MANY}") == ["one"]
    return "one by one"


@feature("presigned URL")
def presigned():
    url = rclone("link", "--expire=1m", f"plain:{BUCKET}/parts").decode().strip()
    assert flows.fetch(url) == (200, LARGE)


@feature("tags")
def tags():
    tagged = ["--header-upload", "x-amz-tagging: a=1&b=2"]
    rclone("copyto", *tagged, flows.file("small", SMALL), f"sealed:{BUCKET}/tagged")
    # rclone does not show them.
    s3 = boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE)
    got = s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"]
    assert got == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}], got
    return "at upload"


flows.unsupported("checksums", "MD5 in metadata")


@feature("sync")
def sync():
    for n in range(10):
        flows.file(f"tree/d{n % 3}/file {n}", SMALL[n:])
    tree, there = f"{DIRECTORY}/tree", f"sealed:{BUCKET}/tree"
    rclone("sync", tree, there)
    rclone("check", tree, there)
    rclone("check", "--download", tree, there)
    flows.file("tree/d1/file 1", b"changed")
    Path(tree, "d2/file 2").unlink()
    refused(CommandFailed, lambda: rclone("check", tree, there))
    rclone("sync", tree, there)
    rclone("check", tree, there)
    rclone("sync", there, DIRECTORY / "back")
    flows.command(["diff", "-r", tree, DIRECTORY / "back"])


flows.run()
