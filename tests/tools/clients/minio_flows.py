"""Flows of minio-py, which sends keys only over HTTPS."""

import io
from datetime import timedelta

import urllib3
from minio import Minio
from minio.commonconfig import ComposeSource, CopySource, Tags
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.sse import SseCustomerKey

import flows
from flows import BUCKET, LARGE, MANY, MANY_COUNT, PART_LEN, SMALL, feature, refused

client = Minio(
    flows.ENDPOINT.removeprefix("https://"),
    access_key=flows.ACCESS_KEY,
    secret_key=flows.SECRET_KEY,
    http_client=urllib3.PoolManager(ca_certs=flows.CA_BUNDLE, cert_reqs="CERT_REQUIRED", retries=False),
)
KEY, OTHER_KEY = SseCustomerKey(flows.KEY), SseCustomerKey(flows.OTHER_KEY)


def code(act):
    return refused(S3Error, act).code


def body(name, **arguments):
    reply = client.get_object(BUCKET, name, **arguments)
    try:
        return reply.read()
    finally:
        reply.close()
        reply.release_conn()


def put(name, contents, **arguments):
    return client.put_object(BUCKET, name, io.BytesIO(contents), len(contents), **arguments)


@feature("buckets")
def buckets():
    client.make_bucket(BUCKET)
    client.make_bucket(BUCKET + "-gone")
    names = [bucket.name for bucket in client.list_buckets()]
    assert BUCKET in names and BUCKET + "-gone" in names, names
    client.remove_bucket(BUCKET + "-gone")
    assert client.bucket_exists(BUCKET) and not client.bucket_exists(BUCKET + "-gone")


@feature("objects")
def objects():
    put("a plain/öbject", SMALL, content_type="text/plain", metadata={"colour": "blue"})
    stat = client.stat_object(BUCKET, "a plain/öbject")
    assert stat.size == len(SMALL) and stat.content_type == "text/plain"
    assert stat.metadata["x-amz-meta-colour"] == "blue"
    assert body("a plain/öbject") == SMALL
    client.remove_object(BUCKET, "a plain/öbject")
    assert code(lambda: body("a plain/öbject")) == "NoSuchKey"


@feature("multipart upload")
def multipart():
    client.fput_object(BUCKET, "parts", str(flows.file("large", LARGE)), part_size=PART_LEN)
    assert client.stat_object(BUCKET, "parts").etag.endswith("-3")
    # A stream of unknown length.
    client.put_object(BUCKET, "streamed", io.BytesIO(LARGE), -1, part_size=PART_LEN)
    for name in ["parts", "streamed"]:
        client.fget_object(BUCKET, name, str(flows.DIRECTORY / "parts"))
        assert (flows.DIRECTORY / "parts").read_bytes() == LARGE


@feature("SSE-C objects")
def sse_c():
    put("sealed", SMALL, sse=KEY)
    assert client.stat_object(BUCKET, "sealed", ssec=KEY).size == len(SMALL)
    assert body("sealed", ssec=KEY) == SMALL
    assert code(lambda: body("sealed")) == "InvalidRequest"


@feature("wrong SSE-C key")
def wrong_key():
    assert code(lambda: client.stat_object(BUCKET, "sealed", ssec=OTHER_KEY)) == "AccessDenied"
    return code(lambda: body("sealed", ssec=OTHER_KEY))


@feature("SSE-C multipart upload")
def sse_c_multipart():
    client.fput_object(BUCKET, "sealed parts", str(flows.file("large", LARGE)), part_size=PART_LEN, sse=KEY)
    client.fget_object(BUCKET, "sealed parts", str(flows.DIRECTORY / "parts"), ssec=KEY)
    assert (flows.DIRECTORY / "parts").read_bytes() == LARGE


@feature("range")
def ranges():
    assert body("sealed parts", offset=5242000, length=2000, ssec=KEY) == LARGE[5242000:5244000]
    assert body("sealed parts", offset=len(LARGE) - 7, ssec=KEY) == LARGE[-7:]


@feature("copy")
def copy():
    client.copy_object(BUCKET, "parts copied", CopySource(BUCKET, "parts"))
    assert body("parts copied") == LARGE


@feature("copy with another SSE-C key")
def copy_with_another_key():
    for name, contents in [("sealed", SMALL), ("sealed parts", LARGE)]:
        client.copy_object(BUCKET, "copied", CopySource(BUCKET, name, ssec=KEY), sse=OTHER_KEY)
        assert body("copied", ssec=OTHER_KEY) == contents
        assert code(lambda: body("copied", ssec=KEY)) == "AccessDenied"
    # Several objects combined into one, in parts copied by the node.
    sources = [ComposeSource(BUCKET, "sealed parts", ssec=KEY), ComposeSource(BUCKET, "sealed", ssec=KEY)]
    client.compose_object(BUCKET, "composed", sources, sse=OTHER_KEY)
    assert body("composed", ssec=OTHER_KEY) == LARGE + SMALL


@feature("list in pages")
def pages():
    for arguments in [{}, {"use_api_v1": True}]:
        names = [item.object_name for item in client.list_objects(MANY, prefix="many/", recursive=True, **arguments)]
        assert len(set(names)) == len(names) == MANY_COUNT
    assert sorted(item.object_name for item in client.list_objects(MANY)) == ["many/", "one"]


@feature("delete many")
def delete_many():
    listed = client.list_objects(MANY, prefix="many/", recursive=True)
    errors = list(client.remove_objects(MANY, [DeleteObject(item.object_name) for item in listed]))
    assert not errors, errors
    assert [item.object_name for item in client.list_objects(MANY)] == ["one"]


@feature("presigned URL")
def presigned():
    url = client.presigned_put_object(BUCKET, "presigned", expires=timedelta(minutes=1))
    assert flows.fetch(url, method="PUT", body=SMALL)[0] == 200
    url = client.presigned_get_object(BUCKET, "presigned", expires=timedelta(minutes=1))
    assert flows.fetch(url) == (200, SMALL)


@feature("tags")
def tags():
    two, one = Tags.new_object_tags(), Tags.new_object_tags()
    two.update({"a": "1", "b": "2"})
    one["c"] = "3"
    put("sealed tagged", SMALL, sse=KEY, tags=two)
    assert client.get_object_tags(BUCKET, "sealed tagged") == two
    client.set_object_tags(BUCKET, "sealed tagged", one)
    assert client.get_object_tags(BUCKET, "sealed tagged") == one
    client.delete_object_tags(BUCKET, "sealed tagged")
    assert not client.get_object_tags(BUCKET, "sealed tagged")


flows.unsupported("checksums")
flows.unsupported("sync")
flows.run()
