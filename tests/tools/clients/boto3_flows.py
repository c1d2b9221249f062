"""Flows of boto3: the client, its managed transfers, paginators and waiters."""

import hashlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

import flows
from flows import BUCKET, KEY, LARGE, MANY, MANY_COUNT, OTHER_KEY, PART_LEN, SMALL, feature, refused

# Without the signature version, presigned URLs use version 2, which the node rejects.
CONFIG = Config(signature_version="s3v4", retries={"total_max_attempts": 1})
s3 = boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE, config=CONFIG)
SSE = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
OTHER_SSE = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": OTHER_KEY}
# boto3 encodes keys itself, except for lists of parts and for attributes.
ENCODED_SSE = {
    "SSECustomerAlgorithm": "AES256",
    "SSECustomerKey": flows.text(KEY),
    "SSECustomerKeyMD5": flows.text(hashlib.md5(KEY).digest()),
}
COPY_SOURCE_SSE = {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": KEY}
PARTS = TransferConfig(multipart_threshold=PART_LEN, multipart_chunksize=PART_LEN)


def code(act):
    return refused(ClientError, act).response["Error"]["Code"]


def body(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


@feature("buckets")
def buckets():
    s3.create_bucket(Bucket=BUCKET)
    s3.get_waiter("bucket_exists").wait(Bucket=BUCKET)
    s3.head_bucket(Bucket=BUCKET)
    s3.create_bucket(Bucket=BUCKET + "-gone")
    names = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert BUCKET in names and BUCKET + "-gone" in names, names
    s3.delete_bucket(Bucket=BUCKET + "-gone")
    assert code(lambda: s3.head_bucket(Bucket=BUCKET + "-gone")) == "404"
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None


@feature("objects")
def objects():
    s3.put_object(Bucket=BUCKET, Key="a plain/öbject", Body=SMALL, ContentType="text/plain", Metadata={"colour": "blue"})
    head = s3.head_object(Bucket=BUCKET, Key="a plain/öbject")
    assert head["ContentLength"] == len(SMALL) and head["ContentType"] == "text/plain"
    assert head["Metadata"] == {"colour": "blue"}
    assert body("a plain/öbject") == SMALL
    assert code(lambda: body("a plain/öbject", IfMatch='"0"')) == "PreconditionFailed"
    s3.delete_object(Bucket=BUCKET, Key="a plain/öbject")
    assert code(lambda: body("a plain/öbject")) == "NoSuchKey"


@feature("multipart upload")
def multipart():
    s3.upload_file(str(flows.file("large", LARGE)), BUCKET, "parts", Config=PARTS)
    assert s3.head_object(Bucket=BUCKET, Key="parts")["ETag"].endswith('-3"')
    s3.download_file(BUCKET, "parts", str(flows.DIRECTORY / "parts"), Config=PARTS)
    assert (flows.DIRECTORY / "parts").read_bytes() == LARGE


@feature("SSE-C objects")
def sse_c():
    put = s3.put_object(Bucket=BUCKET, Key="sealed", Body=SMALL, **SSE)
    assert put["SSECustomerAlgorithm"] == "AES256" and put["SSECustomerKeyMD5"]
    assert s3.head_object(Bucket=BUCKET, Key="sealed", **SSE)["ContentLength"] == len(SMALL)
    assert body("sealed", **SSE) == SMALL
    assert code(lambda: body("sealed")) == "InvalidRequest"


@feature("wrong SSE-C key")
def wrong_key():
    assert code(lambda: s3.head_object(Bucket=BUCKET, Key="sealed", **OTHER_SSE)) == "403"
    return code(lambda: body("sealed", **OTHER_SSE))


@feature("SSE-C multipart upload")
def sse_c_multipart():
    s3.upload_file(str(flows.file("large", LARGE)), BUCKET, "sealed parts", ExtraArgs=SSE, Config=PARTS)
    s3.download_file(BUCKET, "sealed parts", str(flows.DIRECTORY / "parts"), ExtraArgs=SSE, Config=PARTS)
    assert (flows.DIRECTORY / "parts").read_bytes() == LARGE
    part = s3.head_object(Bucket=BUCKET, Key="sealed parts", PartNumber=2, **SSE)
    assert part["ContentLength"] == PART_LEN and part["PartsCount"] == 3
    # Low-level calls: a part with another key, the list of parts, and the abort.
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="by hand", **SSE)["UploadId"]
    this = {"Bucket": BUCKET, "Key": "by hand", "UploadId": upload}
    assert code(lambda: s3.upload_part(**this, PartNumber=1, Body=SMALL, **OTHER_SSE)) == "InvalidRequest"
    s3.upload_part(**this, PartNumber=1, Body=SMALL, **SSE)
    assert [part["Size"] for part in s3.list_parts(**this, **ENCODED_SSE)["Parts"]] == [len(SMALL)]
    assert len(s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]) == 1
    s3.abort_multipart_upload(**this)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


@feature("range")
def ranges():
    assert body("sealed parts", Range="bytes=5242000-5243999", **SSE) == LARGE[5242000:5244000]
    assert body("sealed parts", Range="bytes=-7", **SSE) == LARGE[-7:]
    assert code(lambda: body("sealed", Range="bytes=100000-", **SSE)) == "InvalidRange"


@feature("copy")
def copy():
    s3.copy_object(Bucket=BUCKET, Key="parts copied", CopySource={"Bucket": BUCKET, "Key": "parts"})
    assert body("parts copied") == LARGE


@feature("copy with another SSE-C key")
def copy_with_another_key():
    for name, contents in [("sealed", SMALL), ("sealed parts", LARGE)]:
        source = {"Bucket": BUCKET, "Key": name}
        s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=source, **COPY_SOURCE_SSE, **OTHER_SSE)
        assert body("copied", **OTHER_SSE) == contents
        assert code(lambda: body("copied", **SSE)) == "AccessDenied"
        # The managed copy, in parts.
        extra = {**COPY_SOURCE_SSE, **OTHER_SSE}
        s3.copy(source, BUCKET, "copied", SourceClient=s3, ExtraArgs=extra, Config=PARTS)
        assert body("copied", **OTHER_SSE) == contents


@feature("list in pages")
def pages():
    for operation in ["list_objects_v2", "list_objects"]:
        replies = list(s3.get_paginator(operation).paginate(Bucket=MANY, Prefix="many/"))
        keys = [item["Key"] for page in replies for item in page["Contents"]]
        assert len(replies) > 1 and len(set(keys)) == len(keys) == MANY_COUNT
    rolled = s3.list_objects_v2(Bucket=MANY, Delimiter="/")
    assert [prefix["Prefix"] for prefix in rolled["CommonPrefixes"]] == ["many/"]


@feature("delete many")
def delete_many():
    many = boto3.resource("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE, config=CONFIG).Bucket(MANY)
    many.objects.filter(Prefix="many/").delete()
    assert [item.key for item in many.objects.all()] == ["one"]


@feature("presigned URL")
def presigned():
    url = s3.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": "presigned"}, ExpiresIn=60)
    assert flows.fetch(url, method="PUT", body=SMALL)[0] == 200
    url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "presigned"}, ExpiresIn=60)
    assert flows.fetch(url) == (200, SMALL)
    url = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "sealed", **SSE}, ExpiresIn=60)
    digest = s3.head_object(Bucket=BUCKET, Key="sealed", **SSE)["SSECustomerKeyMD5"]
    prefix = "x-amz-server-side-encryption-customer-"
    headers = {prefix + "algorithm": "AES256", prefix + "key": flows.text(KEY), prefix + "key-md5": digest}
    assert flows.text(KEY) not in url and flows.fetch(url, headers) == (200, SMALL)
    assert flows.fetch(url)[0] == 403
    form = s3.generate_presigned_post(BUCKET, "form", ExpiresIn=60)
    fields = [f'--x\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in form["fields"].items()]
    last = '--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nfrom a form\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert flows.fetch(form["url"], kind, "POST", ("".join(fields) + last).encode())[0] == 204
    assert body("form") == b"from a form"


@feature("tags")
def tags():
    this = {"Bucket": BUCKET, "Key": "sealed tagged"}
    s3.put_object(**this, Body=SMALL, Tagging="a=1&b=2", **SSE)
    assert s3.get_object_tagging(**this)["TagSet"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    s3.put_object_tagging(**this, Tagging={"TagSet": [{"Key": "c", "Value": "3"}]})
    assert s3.head_object(**this, **SSE)["TagCount"] == 1
    s3.delete_object_tagging(**this)
    assert s3.get_object_tagging(**this)["TagSet"] == []


@feature("checksums")
def checksums():
    for sse, encoded_sse in [({}, {}), (SSE, ENCODED_SSE)]:
        for algorithm in ["CRC32", "SHA1", "SHA256"]:
            put = s3.put_object(Bucket=BUCKET, Key="summed", Body=SMALL, ChecksumAlgorithm=algorithm, **sse)
            # Reading the body verifies it.
            got = s3.get_object(Bucket=BUCKET, Key="summed", ChecksumMode="ENABLED", **sse)
            assert got["Body"].read() == SMALL
            assert got["Checksum" + algorithm] == put["Checksum" + algorithm]
            upload = {"ExtraArgs": {"ChecksumAlgorithm": algorithm, **sse}, "Config": PARTS}
            s3.upload_file(str(flows.file("large", LARGE)), BUCKET, "summed parts", **upload)
            head = s3.head_object(Bucket=BUCKET, Key="summed parts", ChecksumMode="ENABLED", **sse)
            assert head["Checksum" + algorithm], head
            attributes = s3.get_object_attributes(
                Bucket=BUCKET, Key="summed parts", ObjectAttributes=["Checksum", "ObjectParts", "ObjectSize"], **encoded_sse
            )
            assert attributes["ObjectSize"] == len(LARGE) and attributes["ObjectParts"]["TotalPartsCount"] == 3
    wrong = {"ChecksumSHA256": flows.text(bytes(32))}
    return code(lambda: s3.put_object(Bucket=BUCKET, Key="summed", Body=SMALL, **wrong, **SSE)) + " for a wrong one"


flows.unsupported("sync")
flows.run()
