//! The SSE-C guide as typed by a newcomer, with both versions of the AWS CLI.

use std::fs;
use std::path::Path;

use keyhole_tests::data;
use keyhole_tests::{Aws, Certificate, Launch, Node};

/// The commands of the guide that set the key's two variables.
const KEY: &str = "ENCRYPTION_KEY=$(cat ssec.key | base64); KEY_DIGEST=$(openssl dgst -md5 -binary ssec.key | base64)";
const SSE_C_OPTIONS: &str =
    "--sse-customer-algorithm AES256 --sse-customer-key $ENCRYPTION_KEY --sse-customer-key-md5 $KEY_DIGEST";

fn guide(node: &Node, cli: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    run_guide(Aws::new(cli, node, directory.path()), directory.path(), cli);
}

/// Runs the guide with `https://` and `--ca-bundle` in every command.
fn guide_over_https(cli: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let certificate = Certificate::new();
    let node = certificate.launch("127.0.0.1:0").start();
    let aws = Aws::new(cli, &node, directory.path()).over_tls(&node, &certificate.authority_path());
    run_guide(aws, directory.path(), cli);
}

fn run_guide(aws: Aws, path: &Path, cli: &'static str) {
    let bucket = if cli.ends_with('1') { "guide-1" } else { "guide-2" };

    aws.shell(&format!("aws s3api create-bucket --bucket {bucket}"));
    aws.shell("openssl rand -out ssec.key 32");
    fs::write(path.join("note.txt"), "as secret as it gets\n").unwrap();
    let put = aws.shell(&format!(
        "{KEY}\naws s3api put-object --bucket {bucket} --key note.txt --body note.txt {SSE_C_OPTIONS}"
    ));
    assert!(put.contains("\"SSECustomerAlgorithm\": \"AES256\"") && put.contains("SSECustomerKeyMD5"), "{put}");

    let refused = aws.shell_error(&format!("aws s3api head-object --bucket {bucket} --key note.txt"));
    assert!(refused.contains("(400)") && refused.contains("Bad Request"), "{refused}");
    let head = aws.shell(&format!("{KEY}\naws s3api head-object --bucket {bucket} --key note.txt {SSE_C_OPTIONS}"));
    assert!(head.contains("\"ContentLength\": 21"), "{head}");
    aws.shell(&format!("{KEY}\naws s3api get-object --bucket {bucket} --key note.txt note.copy {SSE_C_OPTIONS}"));
    assert_eq!(fs::read(path.join("note.copy")).unwrap(), fs::read(path.join("note.txt")).unwrap());

    // The key and its digest from files, as base64 without a newline.
    aws.shell(&format!("{KEY}\nprintf %s \"$ENCRYPTION_KEY\" > key.b64; printf %s \"$KEY_DIGEST\" > digest.b64"));
    let files =
        "--sse-customer-algorithm AES256 --sse-customer-key file://key.b64 --sse-customer-key-md5 file://digest.b64";
    aws.shell(&format!("aws s3api put-object --bucket {bucket} --key filed.txt --body note.txt {files}"));
    aws.shell(&format!("aws s3api get-object --bucket {bucket} --key filed.txt filed.copy {files}"));
    // Only the key: the CLI encodes it and computes the digest.
    let raw = "--sse-customer-algorithm AES256 --sse-customer-key fileb://ssec.key";
    aws.shell(&format!("aws s3api get-object --bucket {bucket} --key filed.txt raw.copy {raw}"));
    assert_eq!(fs::read(path.join("filed.copy")).unwrap(), fs::read(path.join("note.txt")).unwrap());
    assert_eq!(fs::read(path.join("raw.copy")).unwrap(), fs::read(path.join("note.txt")).unwrap());

    for (name, len) in [("empty", 0), ("small", 1024), ("parts", 9 << 20), ("large", 200 << 20)] {
        fs::write(path.join(name), data::bytes(7, len)).unwrap();
        let sse = "--quiet --sse-c AES256 --sse-c-key fileb://ssec.key";
        aws.shell(&format!("aws s3 cp {name} s3://{bucket}/{name} {sse}"));
        aws.shell(&format!("aws s3 cp s3://{bucket}/{name} {name}.copy {sse}"));
        aws.shell(&format!("cmp {name} {name}.copy; rm {name} {name}.copy"));
    }

    // From S3 to S3, with another key.
    fs::write(path.join("forty"), data::bytes(8, 40 << 20)).unwrap();
    aws.shell(&format!("aws s3 cp forty s3://{bucket}/forty --quiet --sse-c AES256 --sse-c-key fileb://ssec.key"));
    aws.shell("openssl rand -out other.key 32");
    let copy = "--sse-c-copy-source AES256 --sse-c-copy-source-key fileb://ssec.key --sse-c AES256 --sse-c-key fileb://other.key";
    aws.shell(&format!("aws s3 cp s3://{bucket}/forty s3://{bucket}/moved --quiet {copy}"));
    let other = "--quiet --sse-c AES256 --sse-c-key fileb://other.key";
    aws.shell(&format!("aws s3 cp s3://{bucket}/moved forty.copy {other}; cmp forty forty.copy"));
    let wrong =
        aws.shell_error(&format!("aws s3 cp s3://{bucket}/moved wrong --sse-c AES256 --sse-c-key fileb://ssec.key"));
    assert!(wrong.contains("(403)"), "{wrong}");

    let listed = aws.shell(&format!("aws s3 ls s3://{bucket}"));
    for name in ["empty", "filed.txt", "forty", "large", "moved", "note.txt", "parts", "small"] {
        assert!(listed.lines().any(|line| line.ends_with(&format!(" {name}"))), "{name} in\n{listed}");
    }
    aws.shell(&format!("aws s3 rm s3://{bucket} --recursive --quiet; aws s3 rb s3://{bucket}"));
    assert!(!aws.shell("aws s3 ls").contains(bucket));
}

#[test]
fn guide_with_awscli_2_succeeds() {
    guide(&Node::new(), "KEYHOLE_AWSCLI_2");
}

#[test]
fn guide_with_awscli_1_succeeds() {
    guide(&Node::new(), "KEYHOLE_AWSCLI_1");
}

#[test]
fn guide_over_epoll_with_generated_credential_succeeds() {
    guide(&Launch::default().arg("--io=epoll").start(), "KEYHOLE_AWSCLI_2");
}

#[test]
fn guide_over_https_with_awscli_2_succeeds() {
    guide_over_https("KEYHOLE_AWSCLI_2");
}

#[test]
#[ignore = "the same session by the older version; tests/run --long runs it"]
fn guide_over_https_with_awscli_1_succeeds() {
    guide_over_https("KEYHOLE_AWSCLI_1");
}
