"""Flows of the AWS CLI, version 1 or 2: the high-level commands, and API commands where necessary.

Each command takes a second to start, so the flows use few of them, and boto3 checks the results.
"""

import json
import os
import shutil
from pathlib import Path

import boto3

import flows
from flows import BUCKET, DIRECTORY, LARGE, MANY, MANY_COUNT, PART_LEN, SMALL, CommandFailed, feature, refused

# Without the signature version, the older CLI presigns with version 2.
CONFIG = f"""[default]
cli_pager =
s3 =
  multipart_threshold = {PART_LEN}
  multipart_chunksize = {PART_LEN}
  signature_version = s3v4
"""
os.environ["AWS_CONFIG_FILE"] = str(flows.file("config", CONFIG.encode()))
os.environ["AWS_CA_BUNDLE"] = flows.CA_BUNDLE
os.environ["AWS_MAX_ATTEMPTS"] = "1"

KEY, OTHER_KEY = (f"fileb://{flows.file(name, key)}" for name, key in [("key", flows.KEY), ("other", flows.OTHER_KEY)])
SSE, OTHER_SSE = (["--sse-c", "AES256", "--sse-c-key", key] for key in [KEY, OTHER_KEY])
COPY_SOURCE_SSE = ["--sse-c-copy-source", "AES256", "--sse-c-copy-source-key", KEY]
API_SSE, OTHER_API_SSE = (
    ["--sse-customer-algorithm", "AES256", "--sse-customer-key", key] for key in [KEY, OTHER_KEY]
)
SMALL_FILE, LARGE_FILE = flows.file("small", SMALL), flows.file("large", LARGE)
check = boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE)


def s3(*arguments):
    return flows.command([flows.PROGRAM, "--endpoint-url", flows.ENDPOINT, "s3", *map(str, arguments)]).decode()


def api(operation, key, *arguments):
    """Runs an operation on an object and returns its JSON."""
    command = [flows.PROGRAM, "--endpoint-url", flows.ENDPOINT, "s3api", operation, "--bucket", BUCKET, "--key", key]
    return json.loads(flows.command([*command, *map(str, arguments)]) or b"null")


def body(key, **arguments):
    """Returns the bytes of an object, read with boto3."""
    return check.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


def here(key):
    return f"s3://{BUCKET}/{key}"


def got(key, *arguments):
    path = DIRECTORY / "got"
    path.unlink(missing_ok=True)
    s3("cp", "--no-progress", here(key), path, *arguments)
    return path.read_bytes()


@feature("buckets")
def buckets():
    s3("mb", f"s3://{BUCKET}")
    s3("mb", f"s3://{BUCKET}-gone")
    s3("rb", f"s3://{BUCKET}-gone")
    names = s3("ls").split()
    assert BUCKET in names and BUCKET + "-gone" not in names, names


@feature("objects")
def objects():
    s3("cp", SMALL_FILE, here("a plain/öbject"), "--content-type", "text/plain", "--metadata", "colour=blue")
    head = api("head-object", "a plain/öbject")
    assert (head["ContentLength"], head["ContentType"]) == (len(SMALL), "text/plain"), head
    assert head["Metadata"] == {"colour": "blue"}
    s3("mv", here("a plain/öbject"), DIRECTORY / "got")
    assert (DIRECTORY / "got").read_bytes() == SMALL
    assert not s3("ls", here("")).strip()


@feature("multipart upload")
def multipart():
    s3("cp", LARGE_FILE, here("parts"))
    assert check.head_object(Bucket=BUCKET, Key="parts", PartNumber=2)["PartsCount"] == 3
    assert got("parts") == LARGE


@feature("SSE-C objects")
def sse_c():
    s3("cp", SMALL_FILE, here("sealed"), *SSE)
    assert got("sealed", *SSE) == SMALL


@feature("wrong SSE-C key")
def wrong_key():
    error = refused(CommandFailed, lambda: api("get-object", "sealed", *OTHER_API_SSE, DIRECTORY / "got"))
    assert "AccessDenied" in str(error), error
    return "AccessDenied"


@feature("SSE-C multipart upload")
def sse_c_multipart():
    s3("cp", LARGE_FILE, here("sealed parts"), *SSE)
    assert got("sealed parts", *SSE) == LARGE


@feature("range")
def ranges():
    api("get-object", "sealed parts", "--range", "bytes=5242000-5243999", *API_SSE, DIRECTORY / "got")
    assert (DIRECTORY / "got").read_bytes() == LARGE[5242000:5244000]


@feature("copy")
def copy():
    s3("cp", here("parts"), here("parts copied"))
    assert body("parts copied") == LARGE


@feature("copy with another SSE-C key")
def copy_with_another_key():
    s3("cp", here("sealed parts"), here("copied"), *COPY_SOURCE_SSE, *OTHER_SSE)
    assert body("copied", SSECustomerAlgorithm="AES256", SSECustomerKey=flows.OTHER_KEY) == LARGE


@feature("list in pages")
def pages():
    listed = s3("ls", "--recursive", f"s3://{MANY}/many/").splitlines()
    assert len(set(listed)) == len(listed) == MANY_COUNT


@feature("delete many")
def delete_many():
    s3("rm", "--quiet", "--recursive", f"s3://{MANY}/many/")
    assert [line.split()[-1] for line in s3("ls", f"s3://{MANY}").splitlines()] == ["one"]
    return "one by one"


@feature("presigned URL")
def presigned():
    assert flows.fetch(s3("presign", here("parts"), "--expires-in", 60).strip()) == (200, LARGE)
    return "to read"


@feature("tags")
def tags():
    api("put-object-tagging", "sealed", "--tagging", "TagSet=[{Key=a,Value=1},{Key=b,Value=2}]")
    assert api("get-object-tagging", "sealed")["TagSet"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]


@feature("checksums")
def checksums():
    put = api("put-object", "summed", "--checksum-algorithm", "SHA256", "--body", SMALL_FILE, *API_SSE)
    # Reading the body verifies it.
    get = api("get-object", "summed", "--checksum-mode", "ENABLED", *API_SSE, DIRECTORY / "got")
    assert get["ChecksumSHA256"] == put["ChecksumSHA256"], get
    assert (DIRECTORY / "got").read_bytes() == SMALL


@feature("sync")
def sync():
    for n in range(10):
        flows.file(f"tree/d{n % 3}/file {n}", SMALL[n:])
    there, tree = here("tree"), DIRECTORY / "tree"
    assert s3("sync", tree, there, *SSE).count("upload: ") == 10
    flows.file("tree/d1/file 1", b"changed")
    Path(tree, "d2/file 2").unlink()
    again = s3("sync", "--delete", tree, there, *SSE)
    assert (again.count("upload: "), again.count("delete: ")) == (1, 1), again
    back = DIRECTORY / "back"
    shutil.rmtree(back, ignore_errors=True)
    s3("sync", "--quiet", there, back, *SSE)
    flows.command(["diff", "-r", tree, back])
    return "with a customer key too"


flows.run()
