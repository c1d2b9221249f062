"""Flows of boto3 with versions and object lock."""

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import flows
from flows import BUCKET, KEY, LARGE, OTHER_KEY, SMALL, feature, in_days, refused

LOCKED = f"{BUCKET}-locked"
s3 = boto3.client("s3", endpoint_url=flows.ENDPOINT, verify=flows.CA_BUNDLE, config=Config(signature_version="s3v4"))


def sse(key):
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}


def code(act):
    return refused(ClientError, act).response["Error"]["Code"]


def versions(bucket, key):
    found = s3.list_object_versions(Bucket=bucket, Prefix=key)
    return [version["VersionId"] for version in found.get("Versions", [])]


@feature("versions")
def versions_of_object():
    s3.create_bucket(Bucket=BUCKET)
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="object", Body=b"null")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    ids = [s3.put_object(Bucket=BUCKET, Key="object", Body=body)["VersionId"] for body in [b"one", b"two"]]
    assert versions(BUCKET, "object") == [ids[1], ids[0], "null"]
    for version, body in [("null", b"null"), (ids[0], b"one"), (ids[1], b"two")]:
        got = s3.get_object(Bucket=BUCKET, Key="object", VersionId=version)
        assert got["VersionId"] == version and got["Body"].read() == body
    s3.copy_object(
        Bucket=BUCKET, Key="object", CopySource={"Bucket": BUCKET, "Key": "object", "VersionId": ids[0]}
    )
    assert s3.get_object(Bucket=BUCKET, Key="object")["Body"].read() == b"one"
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    assert s3.put_object(Bucket=BUCKET, Key="object", Body=b"suspended")["VersionId"] == "null"
    assert len(versions(BUCKET, "object")) == 4
    assert s3.delete_object(Bucket=BUCKET, Key="object")["VersionId"] == "null"
    assert len(versions(BUCKET, "object")) == 3
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})


@feature("SSE-C versions")
def sse_c_versions():
    first = s3.put_object(Bucket=BUCKET, Key="sealed", Body=SMALL, **sse(KEY))["VersionId"]
    second = s3.put_object(Bucket=BUCKET, Key="sealed", Body=LARGE, **sse(OTHER_KEY))["VersionId"]
    for version, key, body in [(first, KEY, SMALL), (second, OTHER_KEY, LARGE)]:
        assert s3.get_object(Bucket=BUCKET, Key="sealed", VersionId=version, **sse(key))["Body"].read() == body
    wrong = code(lambda: s3.get_object(Bucket=BUCKET, Key="sealed", VersionId=first, **sse(OTHER_KEY)))
    assert wrong == "AccessDenied", wrong


@feature("delete markers")
def delete_markers():
    s3.put_object(Bucket=BUCKET, Key="deleted", Body=SMALL)
    marker = s3.delete_object(Bucket=BUCKET, Key="deleted")
    assert marker["DeleteMarker"]
    assert code(lambda: s3.get_object(Bucket=BUCKET, Key="deleted")) == "NoSuchKey"
    s3.delete_object(Bucket=BUCKET, Key="deleted", VersionId=marker["VersionId"])
    assert s3.get_object(Bucket=BUCKET, Key="deleted")["Body"].read() == SMALL


@feature("deletion of a version")
def deletion():
    old = s3.put_object(Bucket=BUCKET, Key="two", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket=BUCKET, Key="two", Body=b"new")["VersionId"]
    objects = [{"Key": "two", "VersionId": new}]
    deleted = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects})["Deleted"]
    assert deleted == objects, deleted
    assert versions(BUCKET, "two") == [old]
    assert s3.get_object(Bucket=BUCKET, Key="two")["Body"].read() == b"old"


@feature("retention")
def retention():
    s3.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    until = in_days(2)
    version = s3.put_object(
        Bucket=LOCKED, Key="kept", Body=SMALL, ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until
    )["VersionId"]
    denied = code(lambda: s3.delete_object(Bucket=LOCKED, Key="kept", VersionId=version))
    assert denied == "AccessDenied", denied
    sooner = {"Mode": "COMPLIANCE", "RetainUntilDate": in_days(1)}
    denied = code(lambda: s3.put_object_retention(Bucket=LOCKED, Key="kept", Retention=sooner))
    assert denied == "AccessDenied", denied
    later = {"Mode": "COMPLIANCE", "RetainUntilDate": in_days(3)}
    s3.put_object_retention(Bucket=LOCKED, Key="kept", Retention=later)
    assert s3.get_object_retention(Bucket=LOCKED, Key="kept")["Retention"] == later
    head = s3.head_object(Bucket=LOCKED, Key="kept")
    assert head["ObjectLockMode"] == "COMPLIANCE", head
    # Governance ends at the request of those who may end it.
    governed = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    version = s3.put_object(Bucket=LOCKED, Key="governed", Body=SMALL, **governed)["VersionId"]
    assert code(lambda: s3.delete_object(Bucket=LOCKED, Key="governed", VersionId=version)) == "AccessDenied"
    s3.delete_object(Bucket=LOCKED, Key="governed", VersionId=version, BypassGovernanceRetention=True)
    assert versions(LOCKED, "governed") == []


@feature("legal hold")
def legal_hold():
    version = s3.put_object(Bucket=LOCKED, Key="held", Body=SMALL, ObjectLockLegalHoldStatus="ON")["VersionId"]
    assert s3.get_object_legal_hold(Bucket=LOCKED, Key="held")["LegalHold"]["Status"] == "ON"
    assert code(lambda: s3.delete_object(Bucket=LOCKED, Key="held", VersionId=version)) == "AccessDenied"
    s3.put_object_legal_hold(Bucket=LOCKED, Key="held", LegalHold={"Status": "OFF"})
    s3.delete_object(Bucket=LOCKED, Key="held", VersionId=version)
    assert versions(LOCKED, "held") == []


@feature("default retention")
def default_retention():
    configuration = flows.lock_by_default(s3, LOCKED)
    assert s3.get_object_lock_configuration(Bucket=LOCKED)["ObjectLockConfiguration"] == configuration
    upload = s3.create_multipart_upload(Bucket=LOCKED, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=LOCKED, Key="parts", UploadId=upload, PartNumber=1, Body=LARGE)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    version = s3.complete_multipart_upload(Bucket=LOCKED, Key="parts", UploadId=upload, MultipartUpload=parts)
    version = version["VersionId"]
    assert s3.head_object(Bucket=LOCKED, Key="parts")["ObjectLockMode"] == "COMPLIANCE"
    bypass = {"BypassGovernanceRetention": True}
    assert code(lambda: s3.delete_object(Bucket=LOCKED, Key="parts", VersionId=version, **bypass)) == "AccessDenied"
    assert code(lambda: s3.delete_bucket(Bucket=LOCKED)) == "BucketNotEmpty"


flows.unsupported("backups")
flows.run()
