//! The sources of the options of `serve`. Precedence: command line, environment, file; all use the
//! same names.
//!
//! The command line defines the options ([`ServeOptions`](crate::cli::serve::ServeOptions)). Options
//! of the environment or the file that the command line lacks are appended to it, so that all
//! sources are parsed and rejected in the same way. The option `--tls-listen` is
//! `KEYHOLE_TLS_LISTEN` in the environment, where commas separate list items, and `tls-listen` in
//! the file, which is TOML.

mod error;

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, CommandFactory, Parser};

use crate::cli::Cli;
use crate::error::FileError;
use crate::regular;
use error::{ConfigError, ValueError};

/// The option that names the file.
const CONFIG: &str = "config";

/// Options that are available on the command line only.
const COMMAND_LINE_ONLY: [&str; 4] = [CONFIG, "format", "help", "json"];

/// Limit of the file's length.
const LEN_MAX: u64 = 1 << 20;

/// Minimum similarity (Jaro) of a suggested name; clap uses the same for options.
const ALIKE: f64 = 0.7;

/// Minimum similarity of an environment variable that is treated as a misspelling.
const MISSPELT: f64 = 0.85;

/// The source of an option's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionOrigin {
    CommandLine,
    Environment(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for OptionOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionOrigin::CommandLine => f.write_str("the command line"),
            OptionOrigin::Environment(name) => f.write_str(name),
            OptionOrigin::File(path) => write!(f, "{}", path.display()),
            OptionOrigin::Default => f.write_str("the default"),
        }
    }
}

/// The command line, and the options of the other sources.
pub(crate) struct Sources {
    arguments: Vec<OsString>,
    /// Options that the command line lacks, by name.
    others: BTreeMap<String, (OptionOrigin, Vec<OsString>)>,
    /// Names of options on the command line.
    typed: HashSet<String>,
    warnings: Vec<String>,
}

/// The effective value of an option.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
    pub(crate) origin: OptionOrigin,
    pub(crate) is_list: bool,
}

/// Parses this process's command line together with the environment and the file. Exits the process
/// on an error.
pub(crate) fn parse() -> (Cli, Sources) {
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    let sources = match Sources::gather(std::env::args_os().collect(), &environment) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("keyhole: {error}");
            std::process::exit(2);
        }
    };
    match Cli::try_parse_from(sources.all()) {
        Ok(cli) => (cli, sources),
        Err(error) => {
            let _ = error.print();
            sources.origins_of(&error).iter().for_each(|line| eprintln!("{line}"));
            std::process::exit(error.exit_code());
        }
    }
}

/// Returns the options that may come from the environment or the file.
fn options() -> Vec<Arg> {
    let mut command = Cli::command();
    let serve = command.find_subcommand_mut("serve").expect("there is serve");
    let is_elsewhere = |arg: &&Arg| arg.get_long().is_some_and(|name| !COMMAND_LINE_ONLY.contains(&name));
    serve.get_arguments().filter(is_elsewhere).cloned().collect()
}

fn name(arg: &Arg) -> &str {
    arg.get_long().expect("options have long names")
}

/// Returns the environment variable of an option.
fn variable(name: &str) -> String {
    format!("KEYHOLE_{}", name.replace('-', "_").to_uppercase())
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

impl Sources {
    fn gather(arguments: Vec<OsString>, environment: &BTreeMap<String, OsString>) -> Result<Self, ConfigError> {
        let is = |at: usize, words: &[&str]| arguments.get(at).is_some_and(|it| words.iter().any(|word| it == word));
        let from = if is(1, &["serve"]) {
            2
        } else if is(1, &["config"]) && is(2, &["check", "show"]) {
            3
        } else {
            return Ok(Sources { arguments, others: BTreeMap::new(), typed: HashSet::new(), warnings: Vec::new() });
        };
        let typed: HashSet<String> = arguments[from..].iter().filter_map(|argument| long_name(argument)).collect();
        let mut sources = Sources { arguments, others: BTreeMap::new(), typed, warnings: Vec::new() };
        let options = options();
        let file = sources.config_file(from).or_else(|| environment.get(&variable(CONFIG)).map(PathBuf::from));
        if let Some(file) = file {
            sources.add_file(&options, &file)?;
        }
        sources.add_environment(&options, environment)?;
        Ok(sources)
    }

    /// Returns the file that the command line names.
    fn config_file(&self, from: usize) -> Option<PathBuf> {
        let mut arguments = self.arguments[from..].iter();
        while let Some(argument) = arguments.next() {
            let bytes = argument.as_bytes();
            if bytes == b"--config" {
                return arguments.next().map(PathBuf::from);
            }
            if let Some(path) = bytes.strip_prefix(b"--config=") {
                return Some(PathBuf::from(OsStr::from_bytes(path)));
            }
        }
        None
    }

    fn add_file(&mut self, options: &[Arg], path: &Path) -> Result<(), ConfigError> {
        let failed = |error| FileError::new("cannot read", path, error);
        if fs::metadata(path).map_err(failed)?.len() > LEN_MAX {
            return Err(ConfigError::FileTooLong { path: path.to_owned(), max: LEN_MAX });
        }
        let text = regular::read_to_string(path, LEN_MAX).map_err(failed)?;
        let table: toml::Table =
            text.parse().map_err(|error| ConfigError::Syntax { path: path.to_owned(), source: Box::new(error) })?;
        for (key, value) in table {
            let Some(option) = options.iter().find(|option| name(option) == key) else {
                return Err(unknown(options, path, key));
            };
            let values = match values_of(option, &value) {
                Ok(values) => values,
                Err(why) => return Err(ConfigError::FileValue { path: path.to_owned(), key, why }),
            };
            self.others.insert(key, (OptionOrigin::File(path.to_owned()), values));
        }
        Ok(())
    }

    fn add_environment(
        &mut self,
        options: &[Arg],
        environment: &BTreeMap<String, OsString>,
    ) -> Result<(), ConfigError> {
        let known: Vec<_> = options.iter().map(|option| (variable(name(option)), option)).collect();
        for (variable, option) in &known {
            let Some(value) = environment.get(variable).filter(|value| !value.is_empty()) else { continue };
            let values = if is_list(option) {
                value.as_bytes().split(|byte| *byte == b',').map(|it| OsString::from_vec(it.to_vec())).collect()
            } else {
                values_of_text(option, value)
                    .map_err(|why| ConfigError::EnvironmentValue { variable: variable.clone(), why })?
            };
            self.others.insert(name(option).to_owned(), (OptionOrigin::Environment(variable.clone()), values));
        }
        for given in environment.keys().filter(|given| given.starts_with("KEYHOLE_")) {
            let bare = |variable: &str| variable["KEYHOLE_".len()..].to_owned();
            let near = known.iter().map(|(variable, _)| (strsim::jaro(&bare(given), &bare(variable)), variable));
            let nearest = near.max_by(|one, other| one.0.total_cmp(&other.0));
            if let Some((likeness, variable)) = nearest
                && (MISSPELT..1.0).contains(&likeness)
            {
                self.warnings.push(format!("unknown environment variable {given}; did you mean {variable}?"));
            }
        }
        Ok(())
    }

    /// Returns all arguments: the command line, then the options that it lacks.
    fn all(&self) -> Vec<OsString> {
        let mut all = self.arguments.clone();
        for (name, (_, values)) in self.others.iter().filter(|(name, _)| !self.typed.contains(*name)) {
            for value in values {
                let mut argument = OsString::from(format!("--{name}"));
                if value != FLAG {
                    argument.push("=");
                    argument.push(value);
                }
                all.push(argument);
            }
        }
        all
    }

    /// Returns the warnings.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the sources of the options that an error is about, except the command line.
    fn origins_of(&self, error: &clap::Error) -> Vec<String> {
        let mut about = Vec::new();
        for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
            match error.get(kind) {
                Some(ContextValue::String(text)) => about.push(text.clone()),
                Some(ContextValue::Strings(texts)) => about.extend(texts.iter().cloned()),
                _ => {}
            }
        }
        let names = about.iter().filter_map(|text| long_name(OsStr::new(text.split_whitespace().next()?)));
        let untyped = names.filter(|name| !self.typed.contains(name));
        let line = |name: String| self.others.get(&name).map(|(origin, _)| format!("--{name} was set by {origin}."));
        untyped.filter_map(line).collect()
    }

    /// Returns the effective value of every option, in the order of the help.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let matches = Cli::command().get_matches_from(self.all());
        let options = options();
        let matches = match matches.subcommand() {
            Some(("config", config)) => config.subcommand().map(|(_, matches)| matches),
            Some((_, matches)) => Some(matches),
            None => None,
        };
        let setting = |option: &Arg| {
            let name = name(option).to_owned();
            let raw = matches.and_then(|matches| matches.get_raw(option.get_id().as_str()));
            let values = raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect();
            let origin = if self.typed.contains(&name) {
                OptionOrigin::CommandLine
            } else {
                self.others.get(&name).map_or(OptionOrigin::Default, |(origin, _)| origin.clone())
            };
            Setting { name, values, origin, is_list: is_list(option) }
        };
        options.iter().map(setting).collect()
    }
}

/// Represents the value of an option that takes none.
const FLAG: &str = "\0";

/// Converts a value of the file to arguments of the command line.
fn values_of(option: &Arg, value: &toml::Value) -> Result<Vec<OsString>, ValueError> {
    use toml::Value;
    match value {
        Value::Array(values) if is_list(option) => {
            values.iter().map(text_of).map(|text| text.map(Into::into)).collect()
        }
        Value::Array(_) => Err(ValueError::List),
        value => values_of_text(option, OsStr::new(&text_of(value)?)),
    }
}

fn text_of(value: &toml::Value) -> Result<String, ValueError> {
    use toml::Value;
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        _ => Err(ValueError::Type),
    }
}

/// Converts one value. An option without a value is present or absent.
fn values_of_text(option: &Arg, value: &OsStr) -> Result<Vec<OsString>, ValueError> {
    if option.get_action().takes_values() {
        return Ok(vec![value.to_owned()]);
    }
    match value.to_str() {
        Some("true") => Ok(vec![FLAG.into()]),
        Some("false") => Ok(Vec::new()),
        _ => Err(ValueError::Flag),
    }
}

/// Returns the name of an argument that is an option.
fn long_name(argument: &OsStr) -> Option<String> {
    let text = argument.to_string_lossy();
    let name = text.strip_prefix("--")?;
    Some(name.split('=').next().unwrap_or(name).to_owned()).filter(|name| !name.is_empty())
}

/// Returns the error for an unknown key, with a suggestion.
fn unknown(options: &[Arg], path: &Path, key: String) -> ConfigError {
    let path = path.to_owned();
    if COMMAND_LINE_ONLY.contains(&&key[..]) {
        return ConfigError::CommandLineOnly { path, key };
    }
    let wanted = key.replace('_', "-");
    let alike = options.iter().map(|option| (strsim::jaro(&wanted, name(option)), name(option)));
    let best = alike.max_by(|one, other| one.0.total_cmp(&other.0)).filter(|(likeness, _)| *likeness > ALIKE);
    match best {
        Some((_, nearest)) => ConfigError::Misspelt { path, key, nearest: nearest.to_owned() },
        None => ConfigError::UnknownKey { path, key },
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::Command;
    use crate::cli::serve::ServeOptions;

    fn gather(line: &[&str], environment: &[(&str, &str)]) -> Result<Sources, ConfigError> {
        let arguments = ["keyhole"].iter().chain(line).map(OsString::from).collect();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        Sources::gather(arguments, &environment)
    }

    fn serve(sources: &Sources) -> ServeOptions {
        let matches = Cli::command().try_get_matches_from(sources.all()).unwrap();
        match Cli::from_arg_matches(&matches).unwrap().command {
            Command::Serve(options) => *options,
            _ => panic!("serve"),
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyhole.toml");
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn precedence_is_command_line_environment_file() {
        let (_directory, path) =
            file("region = \"of-file\"\nthreads = 3\nring = true\nhost-name = [\"a.example\", \"b.example\"]\n");
        let of = |line: &[&str], environment: &[(&str, &str)]| {
            serve(&gather(&[&["serve", "--config", &path], line].concat(), environment).unwrap())
        };
        let options = of(&[], &[]);
        assert_eq!((&options.region[..], options.threads, options.ring), ("of-file", Some(3), true));
        assert_eq!(options.host_names, ["a.example", "b.example"]);
        let environment = [("KEYHOLE_REGION", "of-environment"), ("KEYHOLE_HOST_NAME", "c.example,d.example")];
        let options = of(&[], &environment);
        assert_eq!((&options.region[..], options.threads), ("of-environment", Some(3)));
        assert_eq!(options.host_names, ["c.example", "d.example"]);
        let options = of(&["--region=typed", "--host-name", "e.example"], &environment);
        assert_eq!((&options.region[..], &options.host_names[..]), ("typed", &["e.example".to_owned()][..]));
        assert!(!of(&[], &[("KEYHOLE_RING", "false")]).ring && !of(&["--ring=false"], &[]).ring);
        let options = serve(&gather(&["serve"], &[("KEYHOLE_CONFIG", &path), ("KEYHOLE_RING", "")]).unwrap());
        assert_eq!((&options.region[..], options.ring), ("of-file", true), "an empty variable is none");
    }

    #[test]
    fn unknown_keys_suggest_nearest_name() {
        for (text, expected) in [
            ("tls_listen = \"x\"", "did you mean \"tls-listen\"?"),
            ("capacty = 1", "did you mean \"capacity\"?"),
            ("xyzzy = 1", "keyhole serve --help"),
            ("format = true", "command line only"),
            ("region = [\"a\"]", "one value"),
            ("threads = 1.5", "expected a string, an integer"),
            ("threads", "keyhole.toml"),
            ("[section]\na = 1", "unknown key \"section\""),
        ] {
            let (_directory, path) = file(text);
            let Err(error) = gather(&["serve", "--config", &path], &[]) else { panic!("{text}") };
            let error = error.to_string();
            assert!(error.contains(expected) && error.contains("keyhole.toml"), "{text}: {error}");
        }
        assert!(gather(&["serve", "--config=/no/such/file"], &[]).is_err());
        let sources = gather(&["serve"], &[("KEYHOLE_TREADS", "1"), ("KEYHOLE_THREADS", "x")]).unwrap();
        assert!(sources.warnings()[0].contains("did you mean KEYHOLE_THREADS?"), "{:?}", sources.warnings());
        let error = Cli::try_parse_from(sources.all()).unwrap_err();
        assert_eq!(sources.origins_of(&error), ["--threads was set by KEYHOLE_THREADS."]);
    }

    #[test]
    fn configuration_file_length_is_bounded() {
        let padded = |len: u64| "#".repeat(usize::try_from(len).unwrap());
        let read = |text: &str| {
            let (_directory, path) = file(text);
            gather(&["serve", "--config", &path], &[]).map(|_| ())
        };
        assert!(read(&padded(LEN_MAX)).is_ok() && read(&padded(LEN_MAX + 1)).is_err());
    }

    #[test]
    fn commands_besides_serve_read_no_configuration() {
        let sources =
            gather(&["stat", "DATA"], &[("KEYHOLE_CONFIG", "/no/such/file"), ("KEYHOLE_THREADS", "2")]).unwrap();
        assert_eq!(sources.all(), ["keyhole", "stat", "DATA"]);
    }

    #[test]
    fn settings_report_value_and_origin() {
        let (_directory, path) = file("threads = 3\n");
        let sources =
            gather(&["config", "show", "--config", &path, "--region=typed"], &[("KEYHOLE_LOG", "debug")]).unwrap();
        let settings = sources.settings();
        let of = |name: &str| {
            let setting = settings.iter().find(|setting| setting.name == name).unwrap();
            (setting.values.join(" "), setting.origin.to_string())
        };
        let expected = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
        assert_eq!(of("threads"), expected("3", &path));
        assert_eq!(of("log"), expected("debug", "KEYHOLE_LOG"));
        assert_eq!(of("region"), expected("typed", "the command line"));
        assert_eq!(of("listen"), expected("127.0.0.1:9000", "the default"));
        assert!(settings.iter().all(|setting| !COMMAND_LINE_ONLY.contains(&&setting.name[..])));
    }
}
