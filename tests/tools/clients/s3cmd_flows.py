"""Flows of s3cmd, which does not support customer keys."""

import shutil
from pathlib import Path

import flows
from flows import BUCKET, DIRECTORY, LARGE, MANY, MANY_COUNT, SMALL, CommandFailed, feature, refused

HOST = flows.ENDPOINT.removeprefix("https://")
CONFIG = flows.file(
    "s3cfg",
    f"""[default]
access_key = {flows.ACCESS_KEY}
secret_key = {flows.SECRET_KEY}
host_base = {HOST}
host_bucket = {HOST}
bucket_location = {flows.REGION}
use_https = True
ca_certs_file = {flows.CA_BUNDLE}
max_retries = 1
""".encode(),
)


def s3cmd(*arguments):
    return flows.command([flows.PROGRAM, "--config", CONFIG, "--no-progress", *map(str, arguments)]).decode()


def got(name, *arguments):
    path = DIRECTORY / "got"
    path.unlink(missing_ok=True)
    s3cmd("get", *arguments, f"s3://{BUCKET}/{name}", path)
    return path.read_bytes()


def names(bucket, *arguments):
    lines = s3cmd("ls", *arguments, f"s3://{bucket}").splitlines()
    return [line.split(f"s3://{bucket}/", 1)[1] for line in lines]


@feature("buckets")
def buckets():
    s3cmd("mb", f"s3://{BUCKET}")
    s3cmd("mb", f"s3://{BUCKET}-gone")
    assert f"s3://{BUCKET}-gone" in s3cmd("ls").split()
    s3cmd("rb", f"s3://{BUCKET}-gone")
    listed = s3cmd("ls").split()
    assert f"s3://{BUCKET}" in listed and f"s3://{BUCKET}-gone" not in listed
    assert flows.REGION in s3cmd("info", f"s3://{BUCKET}")


@feature("objects")
def objects():
    s3cmd("put", "--mime-type=text/plain", flows.file("small", SMALL), f"s3://{BUCKET}/a plain/öbject")
    info = s3cmd("info", f"s3://{BUCKET}/a plain/öbject")
    assert "text/plain" in info and str(len(SMALL)) in info, info
    assert got("a plain/öbject") == SMALL
    s3cmd("mv", f"s3://{BUCKET}/a plain/öbject", f"s3://{BUCKET}/moved")
    assert names(BUCKET) == ["moved"]
    s3cmd("del", f"s3://{BUCKET}/moved")
    assert "does not exist" in str(refused(CommandFailed, lambda: got("moved")))


@feature("multipart upload")
def multipart():
    s3cmd("put", "--multipart-chunk-size-mb=5", flows.file("large", LARGE), f"s3://{BUCKET}/parts")
    assert got("parts") == LARGE
    assert not s3cmd("multipart", f"s3://{BUCKET}").splitlines()[2:]


flows.unsupported("SSE-C objects")
flows.unsupported("wrong SSE-C key")
flows.unsupported("SSE-C multipart upload")


@feature("range")
def ranges():
    path = flows.file("begun", LARGE[:5_000_000])
    s3cmd("get", "--continue", f"s3://{BUCKET}/parts", path)
    assert path.read_bytes() == LARGE


@feature("copy")
def copy():
    s3cmd("cp", f"s3://{BUCKET}/parts", f"s3://{BUCKET}/parts copied")
    assert got("parts copied") == LARGE


flows.unsupported("copy with another SSE-C key")


@feature("list in pages")
def pages():
    listed = s3cmd("ls", "--recursive", f"s3://{MANY}/many/").splitlines()
    assert len(set(listed)) == len(listed) == MANY_COUNT
    assert sorted(names(MANY)) == ["many/", "one"]


@feature("delete many")
def delete_many():
    s3cmd("del", "--recursive", f"s3://{MANY}/many/")
    assert names(MANY) == ["one"]


def presigned():
    url = s3cmd("signurl", f"s3://{BUCKET}/parts", "+60").strip()
    status, document = flows.fetch(url.replace("http:", "https:"))
    assert status == 400 and b"Please use AWS4-HMAC-SHA256" in document, document


presigned()
flows.unsupported("presigned URL", "only version 2")


@feature("tags")
def tags():
    s3cmd("settagging", f"s3://{BUCKET}/parts", "a=1&b=2")
    assert s3cmd("gettagging", f"s3://{BUCKET}/parts").split()[-4:] == ["a:", "1", "b:", "2"]
    s3cmd("deltagging", f"s3://{BUCKET}/parts")
    assert "a:" not in s3cmd("gettagging", f"s3://{BUCKET}/parts").split()


flows.unsupported("checksums", "only MD5")


@feature("sync")
def sync():
    contents = {f"d{n % 3}/file {n}": SMALL[n:] for n in range(10)}
    for name, bytes_ in contents.items():
        flows.file(f"tree/{name}", bytes_)
    there, tree = f"s3://{BUCKET}/tree/", f"{DIRECTORY}/tree/"
    assert s3cmd("sync", tree, there).count("upload: ") == 10
    assert s3cmd("sync", tree, there).count("upload: ") == 0
    flows.file("tree/d1/file 1", b"changed")
    Path(tree, "d2/file 2").unlink()
    again = s3cmd("sync", "--delete-removed", tree, there)
    assert (again.count("upload: "), again.count("delete: ")) == (1, 1), again
    back = DIRECTORY / "back"
    shutil.rmtree(back, ignore_errors=True)
    back.mkdir()
    s3cmd("sync", there, f"{back}/")
    flows.command(["diff", "-r", tree, back])


flows.run()
