//! `keyhole remote restore`: copies the objects of a remote into a store.

use super::source::RemoteSource;
use super::{runtime, settings_of};
use crate::cli::remote::RestoreOptions;
use crate::commands::import::{ImportTask, import};
use crate::commands::{CommandError, Result};
use crate::control::Scope;
use crate::remote::S3Client;

pub(super) fn run(options: &RestoreOptions) -> Result<()> {
    let config = settings_of("restore", &options.service)?;
    config.check().map_err(|error| CommandError::Usage(error.to_string()))?;
    let scope = Scope { bucket: options.only_bucket.clone(), prefix: options.only_prefix.clone() };
    let source = RemoteSource::new(runtime()?, S3Client::new(&config)?, config.prefix.len());
    let task = ImportTask {
        target: &options.target,
        manner: &options.manner,
        scope: scope.clone(),
        rate: options.rate,
        what: "the remote",
    };
    import(&task, |handler| source.read(&scope, handler))
}
