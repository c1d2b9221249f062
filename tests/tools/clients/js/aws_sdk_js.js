// Flows of the AWS SDK for JavaScript: the client, its paginators and waiters, managed uploads,
// presigned URLs.

"use strict";

const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Readable } = require("node:stream");
const s3 = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");

const { AWS_DEFAULT_REGION, BUCKET, ENDPOINT, MANY } = process.env;
const MANY_COUNT = Number(process.env.MANY_COUNT);
const PART_LEN = 5 << 20;
const SMALL = crypto.randomBytes(100_000);
const LARGE = crypto.randomBytes(12 << 20);
const KEY = crypto.randomBytes(32);
const OTHER_KEY = crypto.randomBytes(32);

const text = (key) => key.toString("base64");
const digest = (key) => crypto.createHash("md5").update(key).digest("base64");
// The SDK encodes a binary key and computes its digest.
const sealed = (key) => ({ SSECustomerAlgorithm: "AES256", SSECustomerKey: key });
const SSE = sealed(KEY);
const OTHER_SSE = sealed(OTHER_KEY);
const COPY_SOURCE_SSE = { CopySourceSSECustomerAlgorithm: "AES256", CopySourceSSECustomerKey: KEY };
const KEY_HEADERS = {
  "x-amz-server-side-encryption-customer-algorithm": "AES256",
  "x-amz-server-side-encryption-customer-key": text(KEY),
  "x-amz-server-side-encryption-customer-key-md5": digest(KEY),
};
const FILE = path.join(os.tmpdir(), "small");
fs.writeFileSync(FILE, SMALL);

const client = new s3.S3Client({ endpoint: ENDPOINT, region: AWS_DEFAULT_REGION, forcePathStyle: true, maxAttempts: 1 });
// The headers of the last request, as sent.
let last;
const keep = (next) => (args) => {
  last = args.request.headers;
  return next(args);
};
client.middlewareStack.add(keep, { step: "finalizeRequest", priority: "low" });

const send = (operation, input) => client.send(new s3[operation + "Command"](input));
const here = (key, more) => ({ Bucket: BUCKET, Key: key, ...more });
const read = async (got) => Buffer.from(await got.Body.transformToByteArray());
const body = async (key, more) => read(await send("GetObject", here(key, more)));
const same = (got, expected) => assert.ok(expected.equals(got), "wrong bytes");

// Returns the name of the error of a failure; HEAD has only a status.
async function refusal(act) {
  try {
    await act;
  } catch (error) {
    assert.ok(error instanceof s3.S3ServiceException, error);
    return error.name === "Unknown" || error.name === "403" ? String(error.$metadata.httpStatusCode) : error.name;
  }
  throw new Error("no error was raised");
}

const upload = (key, more) =>
  new Upload({ client, params: here(key, more), partSize: PART_LEN, queueSize: 2 }).done();

const flows = {
  async buckets() {
    await send("CreateBucket", { Bucket: BUCKET });
    await s3.waitUntilBucketExists({ client, maxWaitTime: 10 }, { Bucket: BUCKET });
    await send("CreateBucket", { Bucket: BUCKET + "-gone" });
    const names = (await send("ListBuckets", {})).Buckets.map((bucket) => bucket.Name);
    assert.ok(names.includes(BUCKET) && names.includes(BUCKET + "-gone"), String(names));
    await send("DeleteBucket", { Bucket: BUCKET + "-gone" });
    assert.equal(await refusal(send("HeadBucket", { Bucket: BUCKET + "-gone" })), "NotFound");
    assert.equal((await send("GetBucketLocation", { Bucket: BUCKET })).LocationConstraint, undefined);
  },

  async objects() {
    const name = "a plain/öbject";
    const put = await send(
      "PutObject",
      here(name, { Body: SMALL, ContentType: "text/plain", Metadata: { colour: "blue" } }),
    );
    const head = await send("HeadObject", here(name));
    assert.deepEqual([head.ContentLength, head.ContentType], [SMALL.length, "text/plain"]);
    assert.deepEqual(head.Metadata, { colour: "blue" });
    same(await body(name), SMALL);
    assert.equal(await refusal(body(name, { IfMatch: '"0"' })), "PreconditionFailed");
    assert.equal(await refusal(send("PutObject", here(name, { Body: SMALL, IfNoneMatch: "*" }))), "PreconditionFailed");
    await send("PutObject", here(name, { Body: SMALL, IfMatch: put.ETag }));
    await send("DeleteObject", here(name));
    assert.equal(await refusal(body(name)), "NoSuchKey");
  },

  async "multipart upload"() {
    await upload("parts", { Body: LARGE });
    assert.match((await send("HeadObject", here("parts"))).ETag, /-3"$/);
    same(await body("parts"), LARGE);
  },

  async "SSE-C objects"() {
    const put = await send("PutObject", here("sealed", { Body: SMALL, ...SSE }));
    assert.deepEqual([put.SSECustomerAlgorithm, put.SSECustomerKeyMD5], ["AES256", digest(KEY)]);
    assert.equal((await send("HeadObject", here("sealed", SSE))).ContentLength, SMALL.length);
    same(await body("sealed", SSE), SMALL);
    assert.equal(await refusal(body("sealed")), "InvalidRequest");
  },

  async "wrong SSE-C key"() {
    assert.equal(await refusal(send("HeadObject", here("sealed", OTHER_SSE))), "403");
    return refusal(body("sealed", OTHER_SSE));
  },

  async "SSE-C multipart upload"() {
    // A stream of unknown length.
    await upload("sealed parts", { Body: Readable.from(pieces(LARGE)), ...SSE });
    same(await body("sealed parts", SSE), LARGE);
    const part = await send("HeadObject", here("sealed parts", { PartNumber: 2, ...SSE }));
    assert.deepEqual([part.ContentLength, part.PartsCount], [PART_LEN, 3]);
    // Low-level calls: a part with another key, the list of parts, and an aborted upload.
    const { UploadId } = await send("CreateMultipartUpload", here("aborted", SSE));
    const here1 = here("aborted", { UploadId, PartNumber: 1, Body: SMALL });
    assert.equal(await refusal(send("UploadPart", { ...here1, ...OTHER_SSE })), "InvalidRequest");
    await send("UploadPart", { ...here1, ...SSE });
    const listed = await send("ListParts", here("aborted", { UploadId, ...SSE }));
    assert.deepEqual(listed.Parts.map((part) => part.Size), [SMALL.length]);
    assert.equal((await send("ListMultipartUploads", { Bucket: BUCKET })).Uploads.length, 1);
    await send("AbortMultipartUpload", here("aborted", { UploadId }));
    assert.equal((await send("ListMultipartUploads", { Bucket: BUCKET })).Uploads, undefined);
  },

  async range() {
    same(await body("sealed parts", { Range: "bytes=5242000-5243999", ...SSE }), LARGE.subarray(5242000, 5244000));
    same(await body("sealed parts", { Range: "bytes=-7", ...SSE }), LARGE.subarray(-7));
    assert.equal(await refusal(body("sealed", { Range: "bytes=100000-", ...SSE })), "InvalidRange");
  },

  async copy() {
    await send("CopyObject", here("parts copied", { CopySource: `${BUCKET}/parts` }));
    same(await body("parts copied"), LARGE);
  },

  async "copy with another SSE-C key"() {
    for (const [name, contents] of [["sealed", SMALL], ["sealed parts", LARGE]]) {
      const CopySource = encodeURI(`${BUCKET}/${name}`);
      await send("CopyObject", here("copied", { CopySource, ...COPY_SOURCE_SSE, ...OTHER_SSE }));
      same(await body("copied", OTHER_SSE), contents);
      assert.equal(await refusal(body("copied", SSE)), "AccessDenied");
    }
    // In parts.
    const { UploadId } = await send("CreateMultipartUpload", here("copied", OTHER_SSE));
    const Parts = [];
    for (let at = 0; at < LARGE.length; at += PART_LEN) {
      const PartNumber = Parts.length + 1;
      const CopySourceRange = `bytes=${at}-${Math.min(at + PART_LEN, LARGE.length) - 1}`;
      const source = { CopySource: encodeURI(`${BUCKET}/sealed parts`), CopySourceRange, ...COPY_SOURCE_SSE };
      const copied = await send("UploadPartCopy", here("copied", { UploadId, PartNumber, ...source, ...OTHER_SSE }));
      Parts.push({ PartNumber, ETag: copied.CopyPartResult.ETag });
    }
    await send("CompleteMultipartUpload", here("copied", { UploadId, MultipartUpload: { Parts } }));
    same(await body("copied", OTHER_SSE), LARGE);
  },

  async "list in pages"() {
    const keys = [];
    let pageCount = 0;
    for await (const page of s3.paginateListObjectsV2({ client }, { Bucket: MANY, Prefix: "many/" })) {
      pageCount += 1;
      keys.push(...page.Contents.map((object) => object.Key));
    }
    assert.ok(pageCount > 1);
    assert.deepEqual([keys.length, new Set(keys).size], [MANY_COUNT, MANY_COUNT]);
    const rolled = await send("ListObjectsV2", { Bucket: MANY, Delimiter: "/" });
    assert.deepEqual(rolled.CommonPrefixes, [{ Prefix: "many/" }]);
  },

  async "delete many"() {
    for await (const page of s3.paginateListObjectsV2({ client }, { Bucket: MANY, Prefix: "many/" })) {
      const Objects = page.Contents.map((object) => ({ Key: object.Key }));
      const deleted = await send("DeleteObjects", { Bucket: MANY, Delete: { Objects, Quiet: true } });
      assert.equal(deleted.Errors, undefined);
    }
    const left = (await send("ListObjectsV2", { Bucket: MANY })).Contents.map((object) => object.Key);
    assert.deepEqual(left, ["one"]);
  },

  async "presigned URL"() {
    const sign = (operation, input) => getSignedUrl(client, new s3[operation + "Command"](input), { expiresIn: 60 });
    const put = await sign("PutObject", here("presigned"));
    assert.equal((await fetch(put, { method: "PUT", body: SMALL })).status, 200);
    const got = await fetch(await sign("GetObject", here("presigned")));
    assert.equal(got.status, 200);
    same(Buffer.from(await got.arrayBuffer()), SMALL);
    const url = await sign("GetObject", here("sealed", SSE));
    assert.ok(!url.includes(encodeURIComponent(text(KEY))) && url.includes("customer-key-md5"), url);
    const opened = await fetch(url, { headers: KEY_HEADERS });
    assert.equal(opened.status, 200);
    same(Buffer.from(await opened.arrayBuffer()), SMALL);
    assert.equal((await fetch(url)).status, 403);
    const tagged = await fetch(await sign("PutObject", here("presigned", { Tagging: "a=1" })), { method: "PUT" });
    assert.equal(tagged.status, 200);
    assert.deepEqual((await send("GetObjectTagging", here("presigned"))).TagSet, [{ Key: "a", Value: "1" }]);
  },

  async tags() {
    const name = "sealed tagged";
    const tags = async () => (await send("GetObjectTagging", here(name))).TagSet;
    await send("PutObject", here(name, { Body: SMALL, Tagging: "a=1&b=2", ...SSE }));
    assert.deepEqual(await tags(), [{ Key: "a", Value: "1" }, { Key: "b", Value: "2" }]);
    await send("PutObjectTagging", here(name, { Tagging: { TagSet: [{ Key: "c", Value: "3" }] } }));
    assert.equal((await send("HeadObject", here(name, SSE))).TagCount, 1);
    await send("DeleteObjectTagging", here(name));
    assert.deepEqual(await tags(), []);
  },

  async checksums() {
    for (const sse of [{}, SSE]) {
      // By default: CRC32, in a header for data in memory, and in a trailer for streams.
      const put = await send("PutObject", here("summed", { Body: SMALL, ...sse }));
      assert.equal(last["x-amz-checksum-crc32"], put.ChecksumCRC32);
      const stream = { Body: fs.createReadStream(FILE), ContentLength: SMALL.length };
      const streamed = await send("PutObject", here("summed", { ...stream, ...sse }));
      assert.deepEqual([last["x-amz-trailer"], last["content-encoding"]], ["x-amz-checksum-crc32", "aws-chunked"]);
      assert.equal(streamed.ChecksumCRC32, put.ChecksumCRC32);
      const got = await send("GetObject", here("summed", sse));
      assert.equal(last["x-amz-checksum-mode"], "ENABLED");
      assert.equal(got.ChecksumCRC32, put.ChecksumCRC32);
      // Reading the body verifies it.
      same(await read(got), SMALL);
      for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]) {
        const name = "Checksum" + ChecksumAlgorithm;
        const stream = { Body: fs.createReadStream(FILE), ContentLength: SMALL.length, ChecksumAlgorithm };
        const put = await send("PutObject", here("summed", { ...stream, ...sse }));
        assert.equal(last["x-amz-trailer"], "x-amz-checksum-" + ChecksumAlgorithm.toLowerCase());
        const got = await send("GetObject", here("summed", sse));
        assert.ok(put[name] && got[name] === put[name], name);
        same(await read(got), SMALL);
      }
      for (const [ChecksumAlgorithm, type] of [["CRC64NVME", "FULL_OBJECT"], ["SHA256", "COMPOSITE"]]) {
        await upload("summed parts", { Body: LARGE, ChecksumAlgorithm, ...sse });
        const head = await send("HeadObject", here("summed parts", { ChecksumMode: "ENABLED", ...sse }));
        assert.deepEqual([head.ChecksumType, !!head["Checksum" + ChecksumAlgorithm]], [type, true]);
        const attributes = await send(
          "GetObjectAttributes",
          here("summed parts", { ObjectAttributes: ["Checksum", "ObjectParts", "ObjectSize"], ...sse }),
        );
        assert.deepEqual([attributes.ObjectSize, attributes.ObjectParts.TotalPartsCount], [LARGE.length, 3]);
        same(await body("summed parts", sse), LARGE);
      }
    }
    const wrong = { ChecksumSHA256: Buffer.alloc(32).toString("base64"), ...SSE };
    return (await refusal(send("PutObject", here("summed", { Body: SMALL, ...wrong })))) + " for a wrong one";
  },
};

function* pieces(bytes) {
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    yield bytes.subarray(at, at + (1 << 20));
  }
}

async function run() {
  for (const [feature, flow] of Object.entries(flows)) {
    const note = await flow();
    console.log(note ? `ok ${feature}: ${note}` : `ok ${feature}`);
  }
  console.log("unsupported sync");
}

run().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
