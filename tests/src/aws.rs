//! The AWS CLI, run as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::Node;
use crate::sigv4::Signer;

/// One of the AWS CLIs, configured for a node in its own directory.
pub struct Aws {
    name: &'static str,
    program: PathBuf,
    directory: PathBuf,
    environment: Vec<(String, String)>,
}

/// The CLIs under test: Debian's version 2, and version 1 from PyPI.
pub const CLIS: [&str; 2] = ["KEYHOLE_AWSCLI_2", "KEYHOLE_AWSCLI_1"];

/// Returns the path of the CLI in an environment variable of [`CLIS`].
pub fn program(variable: &str) -> PathBuf {
    let usual = match variable {
        "KEYHOLE_AWSCLI_2" => PathBuf::from("/usr/bin/aws"),
        _ => crate::target_dir().join("venv/bin/aws"),
    };
    std::env::var_os(variable).map_or(usual, PathBuf::from)
}

impl Aws {
    /// Configures the CLI in an environment variable of [`CLIS`].
    pub fn new(variable: &'static str, node: &Node, directory: &Path) -> Self {
        Aws::with_endpoint(variable, &node.endpoint(), node.signer(), directory)
    }

    /// Configures the CLI in an environment variable of [`CLIS`] for another service.
    pub fn with_endpoint(variable: &'static str, endpoint: &str, signer: &Signer, directory: &Path) -> Self {
        let program = program(variable);
        assert!(program.exists(), "{} is missing: tests/run installs it", program.display());
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            set("AWS_ACCESS_KEY_ID", &signer.access_key),
            set("AWS_SECRET_ACCESS_KEY", &signer.secret_key),
            set("AWS_DEFAULT_REGION", &signer.region),
            set("AWS_CONFIG_FILE", "/dev/null"),
            set("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            set("AWS_EC2_METADATA_DISABLED", "true"),
            set("AWS_MAX_ATTEMPTS", "1"),
            set("AWS_PAGER", ""),
            set("ENDPOINT", endpoint),
        ];
        Aws { name: variable, program, directory: directory.to_owned(), environment }
    }

    /// Switches to TLS, with a file of certificates to trust.
    pub fn over_tls(mut self, node: &Node, trusted: &Path) -> Self {
        self.environment.retain(|(name, _)| name != "ENDPOINT");
        self.environment.push(("ENDPOINT".to_owned(), format!("https://{}", node.tls_address())));
        self.environment.push(("CA_BUNDLE".to_owned(), trusted.to_str().expect("a path in UTF-8").to_owned()));
        self
    }

    /// Returns its name, for messages.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Runs a shell line in the directory; `aws` is this CLI with the node as its endpoint.
    pub fn try_shell(&self, line: &str) -> Output {
        let function =
            "aws() { \"$AWS\" --endpoint-url \"$ENDPOINT\" ${CA_BUNDLE:+--ca-bundle \"$CA_BUNDLE\"} \"$@\"; }";
        self.bash(&format!("{function}\n{line}")).output().expect("bash runs")
    }

    /// Starts one CLI command with these arguments and additional environment variables. The
    /// process is the CLI itself, so that it can be terminated early.
    pub fn begin_with(&self, environment: &[(&str, &str)], arguments: &str) -> Child {
        // A background test run may have inherited an ignored SIGINT.
        let program = "exec env --default-signal=INT \"$AWS\" --endpoint-url \"$ENDPOINT\"";
        let mut command = self.bash(&format!("{program} {arguments}"));
        command.envs(environment.iter().copied());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bash runs")
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]);
        command.current_dir(&self.directory).env("AWS", &self.program).envs(self.environment.iter().cloned());
        for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "AWS_PROFILE", "AWS_ENDPOINT_URL"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs shell lines that must succeed and returns their output.
    #[track_caller]
    pub fn shell(&self, line: &str) -> String {
        let output = self.try_shell(line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {line}\n{error}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell line that must fail and returns its error output.
    #[track_caller]
    pub fn shell_error(&self, line: &str) -> String {
        let output = self.try_shell(line);
        assert!(!output.status.success(), "{}: {line} succeeded", self.name);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}
