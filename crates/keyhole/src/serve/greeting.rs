//! The messages of a node at start.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;

use keyhole_node::AccessKey;

use crate::access::KeyOrigin;
use crate::service;

/// The addresses that the node listens on.
pub(super) struct Addresses {
    pub(super) plain: SocketAddr,
    pub(super) tls: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
}

impl Addresses {
    /// Returns the status text that the service manager shows for a healthy node.
    pub(super) fn status(&self, read_only: Option<&str>) -> String {
        let tls = self.tls.map(|address| format!(" and https://{address}")).unwrap_or_default();
        let read_only = read_only.map(|why| format!("; read-only: {why}")).unwrap_or_default();
        format!("serving on http://{}{tls}{read_only}", self.plain)
    }

    /// Prints the addresses, the origin of the access keys, and commands to try.
    pub(super) fn greet(&self, origin: &KeyOrigin, region: &str) {
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        match origin {
            KeyOrigin::Environment => line("credential: from KEYHOLE_ACCESS_KEY and KEYHOLE_SECRET_KEY"),
            KeyOrigin::File(path) => line(&format!("credential: from {}", path.display())),
            // Other output is kept, in a journal, a log or a file that others than the owner may
            // read: never print the secret there.
            KeyOrigin::Made(path, key) if service::is_managed() || !io::stdout().is_terminal() => {
                let path = path.display();
                line(&format!("created the credential {}: its secret is in {path}, for the owner only", key.id));
            }
            KeyOrigin::Made(path, key) => show_key(&mut line, path, self.plain, key, region),
        }
        if let Some(address) = self.admin {
            line(&format!("status page on http://{address}/"));
        }
        if let Some(address) = self.tls {
            line(&format!("listening on https://{address}"));
        }
        line(&format!("listening on http://{}", self.plain));
        let mut out = io::stdout().lock();
        // Standard output may be closed; the node serves anyway.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Prints the access key that was created, the only time that it is shown, and commands to try.
fn show_key(line: &mut impl FnMut(&str), path: &Path, address: SocketAddr, key: &AccessKey, region: &str) {
    let endpoint = format!("aws --endpoint-url http://{address}");
    line(&format!("Created a credential in {}. To try the node:", path.display()));
    line("");
    line(&format!("  export AWS_ACCESS_KEY_ID={}", key.id));
    line(&format!("  export AWS_SECRET_ACCESS_KEY={}", key.secret.expose()));
    line(&format!("  export AWS_DEFAULT_REGION={region}"));
    line(&format!("  {endpoint} s3api create-bucket --bucket my-bucket"));
    line("  openssl rand -out ssec.key 32");
    line(&format!("  {endpoint} s3 cp FILE s3://my-bucket/ --sse-c AES256 --sse-c-key fileb://ssec.key"));
    line(&format!("  {endpoint} s3 cp s3://my-bucket/FILE COPY --sse-c AES256 --sse-c-key fileb://ssec.key"));
    line("");
}
