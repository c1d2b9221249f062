//! `keyhole config`: checks and shows the configuration of a node.

use std::fmt::Write;

use serde_json::json;

use super::Result;
use super::operate::print;
use crate::access;
use crate::cli::config::ConfigCommand;
use crate::config::{OptionOrigin, Setting, Sources};
use crate::serve;
use crate::store::StoreLocation;

pub(crate) fn run(command: &ConfigCommand, sources: &Sources) -> Result<()> {
    for warning in sources.warnings() {
        eprintln!("keyhole: {warning}");
    }
    match command {
        ConfigCommand::Check(options) => {
            serve::check(&options.serve)?;
            print("the configuration is valid\n");
        }
        ConfigCommand::Show(options) if options.json => {
            let all: serde_json::Map<_, _> = sources
                .settings()
                .iter()
                .map(|setting| {
                    let value = if setting.is_list { json!(setting.values) } else { json!(setting.values.first()) };
                    (setting.name.clone(), json!({ "value": value, "from": setting.origin.to_string() }))
                })
                .collect();
            let text = serde_json::to_string_pretty(&all)?;
            print(&format!("{text}\n"));
        }
        ConfigCommand::Show(options) => {
            let location = StoreLocation::find(&options.serve.data, options.serve.state.as_deref())?;
            print(&format!("# access keys: {}\n{}", access::describe(&location.state)?, as_toml(&sources.settings())));
        }
    }
    Ok(())
}

/// Formats the settings as a configuration file, with unset ones as comments.
fn as_toml(settings: &[Setting]) -> String {
    let mut text = String::new();
    for setting in settings {
        let Setting { name, values, origin, is_list } = setting;
        let value = |value: &String| match value.parse::<i64>() {
            Ok(number) => toml::Value::Integer(number),
            Err(_) if value == "true" || value == "false" => toml::Value::Boolean(value == "true"),
            Err(_) => toml::Value::String(value.clone()),
        };
        let _ = match (&values[..], is_list) {
            ([], _) => writeln!(text, "# {name} is not set"),
            (values, true) => {
                let list = toml::Value::Array(values.iter().map(value).collect());
                writeln!(text, "{name} = {list}  # from {origin}")
            }
            ([one, ..], false) if *origin == OptionOrigin::Default => writeln!(text, "{name} = {}", value(one)),
            ([one, ..], false) => writeln!(text, "{name} = {}  # from {origin}", value(one)),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_settings_are_valid_configuration() {
        let setting = |name: &str, values: &[&str], is_list, origin| Setting {
            name: name.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            origin,
            is_list,
        };
        let text = as_toml(&[
            setting("data", &["/srv/\"a\""], false, OptionOrigin::CommandLine),
            setting("threads", &["2"], false, OptionOrigin::Default),
            setting("ring", &["true"], false, OptionOrigin::Environment("KEYHOLE_RING".to_owned())),
            setting("host-name", &["a", "b"], true, OptionOrigin::Default),
            setting("capacity", &[], false, OptionOrigin::Default),
        ]);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["data"].as_str(), Some("/srv/\"a\""));
        assert_eq!((table["threads"].as_integer(), table["ring"].as_bool()), (Some(2), Some(true)));
        assert_eq!(table["host-name"].as_array().map(Vec::len), Some(2));
        assert!(text.contains("# from KEYHOLE_RING\n") && text.contains("# capacity is not set\n"), "{text}");
    }
}
