//! `keyhole remote`: manages the remotes of a node.

mod restore;
mod source;
mod verify;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::operate::{print, size, unexpected};
use super::{CommandError, Result};
use crate::cli::Target;
use crate::cli::remote::{
    AddOptions, ListOptions, NamedOptions, RemoteCommand, ServiceOptions, StatusOptions, VerifyOptions,
};
use crate::control::{self, Reply, Request};
use crate::error::FileError;
use crate::remote::{Mode, Plaintext, RemoteConfig, RemotesFile, S3Client, Source};
use crate::store::{StoreError, StoreLocation};
use crate::transfer::versions::name;

pub(crate) fn run(command: &RemoteCommand) -> Result<()> {
    match command {
        RemoteCommand::Add(options) => add(options),
        RemoteCommand::List(options) => list(options),
        RemoteCommand::Pause(options) => set_paused(options, true),
        RemoteCommand::Resume(options) => set_paused(options, false),
        RemoteCommand::Remove(options) => remove(options),
        RemoteCommand::Status(options) => status(options),
        RemoteCommand::Verify(options) => verify(options),
        RemoteCommand::Restore(options) => restore::run(options),
    }
}

/// Returns the file of remotes of a store, which must exist.
fn file_of(target: &Target) -> Result<(StoreLocation, RemotesFile)> {
    let location = StoreLocation::find(&target.data, target.state.as_deref())?;
    if !location.medium().exists() {
        return Err(StoreError::Missing(target.data.clone()).into());
    }
    let file = RemotesFile::in_state(&location.state);
    Ok((location, file))
}

/// Changes the remotes, and makes the node that serves the store reload them.
fn change<T>(target: &Target, change: impl FnOnce(&mut Vec<RemoteConfig>) -> Result<T>) -> Result<T> {
    let (location, file) = file_of(target)?;
    let result = file.change(change)?;
    match control::ask(&location.socket(), &Request::RemotesReload {}, &mut |_| {}) {
        Ok(None | Some(Reply::RemotesReloaded { .. })) => Ok(result),
        Ok(Some(Reply::Failed { message })) => {
            Err(CommandError::Other(format!("the remotes were changed, but the node rejected them: {message}")))
        }
        Ok(Some(_)) => Err(unexpected()),
        Err(why) => Err(CommandError::Other(format!("the remotes were changed, but the node was not notified: {why}"))),
    }
}

/// Returns the index of a remote.
fn find(remotes: &[RemoteConfig], name: &str) -> Result<usize> {
    remotes.iter().position(|remote| remote.name == name).ok_or_else(|| {
        let names = remotes.iter().map(|remote| &remote.name[..]).collect::<Vec<_>>().join(", ");
        let expected =
            if names.is_empty() { "the store has no remotes".to_owned() } else { format!("expected one of {names}") };
        CommandError::Other(format!("no remote `{name}`: {expected}"))
    })
}

/// Returns the settings of a remote that everything is shipped to.
fn settings_of(name: &str, service: &ServiceOptions) -> Result<RemoteConfig> {
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_ref();
        let absolute =
            path.map(|path| std::path::absolute(path).map_err(|error| FileError::new("cannot find", path, error)));
        absolute.transpose()
    };
    Ok(RemoteConfig {
        name: name.to_owned(),
        url: service.url.clone(),
        bucket: service.bucket.clone(),
        prefix: service.prefix.clone(),
        region: service.region.clone(),
        credentials: absolute(&service.credentials)?,
        ca: absolute(&service.ca)?,
        source: Source::all(),
        mode: Mode::Mirror,
        keep_deleted: false,
        plaintext: Plaintext::Skip,
        rate: None,
        window: None,
        paused: false,
        take_over: false,
        insecure_http: service.insecure_http,
    })
}

fn config_of(options: &AddOptions) -> Result<RemoteConfig> {
    let config = RemoteConfig {
        source: Source::new(options.sources.clone()),
        mode: options.mode,
        keep_deleted: options.keep_deleted,
        plaintext: options.plaintext,
        rate: options.rate,
        window: options.window,
        take_over: options.take_over,
        ..settings_of(&options.name, &options.service)?
    };
    config.check().map_err(|error| CommandError::Usage(error.to_string()))?;
    Ok(config)
}

fn add(options: &AddOptions) -> Result<()> {
    let config = config_of(options)?;
    let (location, file) = file_of(&options.target)?;
    // A conflict with another remote is found before the service is asked.
    file.check_with(&config)?;
    if !options.no_check {
        check(&config)?;
    }
    warn_of_other_owner(&config, &location.state);
    change(&options.target, |remotes| {
        remotes.push(config.clone());
        Ok(())
    })
}

/// Warns if the node's user may be unable to read a credentials file, which only its owner can read.
fn warn_of_other_owner(config: &RemoteConfig, state: &Path) {
    let owner = |path: &Path| fs::metadata(path).map(|metadata| metadata.uid()).ok();
    let Some(credentials) = &config.credentials else { return };
    if owner(credentials) != owner(state) {
        eprintln!(
            "keyhole: credentials file {} and state directory {} have different owners: the node's user must be able to \
             read the file",
            credentials.display(),
            state.display()
        );
    }
}

/// Connects to a remote as the node will.
fn check(config: &RemoteConfig) -> Result<()> {
    let client = S3Client::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| CommandError::io("cannot start the async runtime", error))?;
    runtime.block_on(client.check()).map_err(|error| {
        let RemoteConfig { url, bucket, .. } = config;
        CommandError::Other(format!(
            "cannot list bucket `{bucket}` at {url}: {error}; correct the options, or use --no-check to add the remote \
             nevertheless"
        ))
    })
}

fn list(options: &ListOptions) -> Result<()> {
    let remotes = file_of(&options.target)?.1.read()?;
    if options.json {
        let text = serde_json::to_string_pretty(&remotes)?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["remote", "url", "bucket", "source", "limits", "state"]);
    for remote in &remotes {
        let separator = if remote.prefix.is_empty() { "" } else { "/" };
        let sources: Vec<_> = remote.source.patterns().iter().map(ToString::to_string).collect();
        let rate = remote.rate.map(|rate| format!("{}/s", size(rate)));
        let window = remote.window.map(|window| format!("{window} UTC"));
        let limits: Vec<_> = rate.into_iter().chain(window).collect();
        table.add_row([
            remote.name.clone(),
            remote.url.clone(),
            format!("{}{separator}{}", remote.bucket, remote.prefix),
            sources.join("\n"),
            if limits.is_empty() { "-".to_owned() } else { limits.join("\n") },
            if remote.paused { "paused" } else { "active" }.to_owned(),
        ]);
    }
    print(&format!("{table}\n"));
    Ok(())
}

fn set_paused(options: &NamedOptions, paused: bool) -> Result<()> {
    change(&options.target, |remotes| {
        let at = find(remotes, &options.name)?;
        remotes[at].paused = paused;
        Ok(())
    })
}

fn remove(options: &NamedOptions) -> Result<()> {
    let remotes = file_of(&options.target)?.1.read()?;
    if remotes[find(&remotes, &options.name)?].mode == Mode::Tier {
        refuse_if_evicted(&options.target)?;
    }
    change(&options.target, |remotes| {
        let at = find(remotes, &options.name)?;
        remotes.remove(at);
        Ok(())
    })
}

/// Fails if only a remote has the bytes of some versions.
fn refuse_if_evicted(target: &Target) -> Result<()> {
    let reply = super::operate::ask(target, Request::Stat { segments: false }, |_| {})?;
    let Reply::Stat(stat) = reply else { return Err(unexpected()) };
    match stat.evicted {
        0 => Ok(()),
        evicted => Err(CommandError::Other(format!(
            "the bytes of {evicted} versions are only in remotes of mode tier; export the store from the running node, or \
             pause the remote instead"
        ))),
    }
}

fn status(options: &StatusOptions) -> Result<()> {
    let remotes = super::status::ask(&options.target)?.remotes;
    if options.json {
        let text = serde_json::to_string_pretty(&remotes)?;
        print(&format!("{text}\n"));
        return Ok(());
    }
    let mut text = format!("{}\n", super::status::remotes(&remotes));
    for remote in &remotes {
        if let Some(why) = &remote.failure {
            text += &format!("! {}: {why}\n", remote.remote);
        }
        for exception in &remote.exceptions {
            let name = name(&exception.bucket, &exception.key, exception.version.parse().ok());
            text += &format!("! {}: not shipped: {name}: {}\n", remote.remote, exception.why);
        }
    }
    print(&text);
    Ok(())
}

fn verify(options: &VerifyOptions) -> Result<()> {
    let (location, file) = file_of(&options.target)?;
    let remotes = file.read()?;
    let config = &remotes[find(&remotes, &options.name)?];
    let verifier = verify::Verifier {
        runtime: runtime()?,
        client: S3Client::new(config)?,
        config,
        reads_content: options.content,
    };
    verifier.run(&location, options.json)
}

/// Starts a runtime for a client, whose connections make progress while the command does other work.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().enable_time().build();
    runtime.map_err(|error| CommandError::io("cannot start the async runtime", error))
}
