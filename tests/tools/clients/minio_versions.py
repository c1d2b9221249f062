"""Flows of minio-py with versions and object lock."""

import io

import urllib3
from minio import Minio
from minio.commonconfig import COMPLIANCE, ENABLED, GOVERNANCE
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.objectlockconfig import DAYS, ObjectLockConfig
from minio.retention import Retention
from minio.sse import SseCustomerKey
from minio.versioningconfig import VersioningConfig

import flows
from flows import BUCKET, LARGE, SMALL, feature, in_days, refused

client = Minio(
    flows.ENDPOINT.removeprefix("https://"),
    access_key=flows.ACCESS_KEY,
    secret_key=flows.SECRET_KEY,
    http_client=urllib3.PoolManager(ca_certs=flows.CA_BUNDLE, cert_reqs="CERT_REQUIRED", retries=False),
)
KEY, OTHER_KEY = SseCustomerKey(flows.KEY), SseCustomerKey(flows.OTHER_KEY)
LOCKED = f"{BUCKET}-locked"


def put(bucket, key, body, **more):
    return client.put_object(bucket, key, io.BytesIO(body), len(body), **more).version_id


def got(bucket, key, **more):
    response = client.get_object(bucket, key, **more)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()


def code(act):
    return refused(S3Error, act).code


@feature("versions")
def versions_of_object():
    client.make_bucket(BUCKET)
    client.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED))
    assert client.get_bucket_versioning(BUCKET).status == ENABLED
    ids = [put(BUCKET, "object", body) for body in [b"one", b"two"]]
    listed = [item.version_id for item in client.list_objects(BUCKET, prefix="object", include_version=True)]
    assert listed == ids[::-1], listed
    assert got(BUCKET, "object", version_id=ids[0]) == b"one"
    assert got(BUCKET, "object") == b"two"


@feature("SSE-C versions")
def sse_c_versions():
    first = put(BUCKET, "sealed", SMALL, sse=KEY)
    put(BUCKET, "sealed", LARGE, sse=OTHER_KEY)
    assert got(BUCKET, "sealed", version_id=first, ssec=KEY) == SMALL
    assert got(BUCKET, "sealed", ssec=OTHER_KEY) == LARGE


@feature("delete markers")
def delete_markers():
    put(BUCKET, "deleted", SMALL)
    client.remove_object(BUCKET, "deleted")
    assert code(lambda: got(BUCKET, "deleted")) == "NoSuchKey"
    items = client.list_objects(BUCKET, prefix="deleted", include_version=True)
    [marker] = [item.version_id for item in items if item.is_delete_marker]
    client.remove_object(BUCKET, "deleted", version_id=marker)
    assert got(BUCKET, "deleted") == SMALL


@feature("deletion of a version")
def deletion():
    put(BUCKET, "two", b"old")
    new = put(BUCKET, "two", b"new")
    assert list(client.remove_objects(BUCKET, [DeleteObject("two", new)])) == []
    assert got(BUCKET, "two") == b"old"


@feature("retention")
def retention():
    client.make_bucket(LOCKED, object_lock=True)
    version = put(LOCKED, "kept", SMALL, retention=Retention(COMPLIANCE, in_days(2)))
    assert code(lambda: client.remove_object(LOCKED, "kept", version_id=version)) == "AccessDenied"
    sooner = Retention(COMPLIANCE, in_days(1))
    assert code(lambda: client.set_object_retention(LOCKED, "kept", sooner)) == "AccessDenied"
    later = Retention(COMPLIANCE, in_days(3))
    client.set_object_retention(LOCKED, "kept", later)
    found = client.get_object_retention(LOCKED, "kept")
    assert (found.mode, found.retain_until_date) == (later.mode, later.retain_until_date)


@feature("legal hold")
def legal_hold():
    version = put(LOCKED, "held", SMALL, legal_hold=True)
    assert client.is_object_legal_hold_enabled(LOCKED, "held")
    assert code(lambda: client.remove_object(LOCKED, "held", version_id=version)) == "AccessDenied"
    client.disable_object_legal_hold(LOCKED, "held")
    assert not client.is_object_legal_hold_enabled(LOCKED, "held")
    client.remove_object(LOCKED, "held", version_id=version)


@feature("default retention")
def default_retention():
    client.set_object_lock_config(LOCKED, ObjectLockConfig(GOVERNANCE, 1, DAYS))
    found = client.get_object_lock_config(LOCKED)
    assert (found.mode, found.duration, found.duration_unit) == (GOVERNANCE, 1, DAYS)
    version = put(LOCKED, "default", SMALL)
    assert code(lambda: client.remove_object(LOCKED, "default", version_id=version)) == "AccessDenied"


flows.unsupported("backups")
flows.run()
