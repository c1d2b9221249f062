//! Package contents: manual pages, completions, units, and the Debian package itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use keyhole_tests::command::{Directory, expect_success};
use keyhole_tests::device::skipped;
use keyhole_tests::node::binary;
use keyhole_tests::{target_dir, top};

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {printed}");
    printed
}

/// Returns the package built by `tests/run`, if there is one.
fn package() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KEYHOLE_DEB") {
        return Some(path.into());
    }
    let built = fs::read_dir(target_dir().join("debian")).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    built.filter(|path| path.extension().is_some_and(|end| end == "deb")).max()
}

/// Returns the subcommands of a command, from its help.
fn commands_below(path: &[&str]) -> Vec<Vec<String>> {
    let help = String::from_utf8(expect_success(&[path, &["--help"]].concat(), b"")).unwrap();
    let Some((_, commands)) = help.split_once("\nCommands:\n") else { return vec![] };
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    let below = |name: &str| {
        let command = [path, &[name]].concat();
        let own: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
        [vec![own], commands_below(&command)].concat()
    };
    names.into_iter().flat_map(below).collect()
}

#[test]
fn commands_have_manual_pages() {
    let directory = Directory::new();
    let pages = directory.path("deep/man");
    expect_success(&["man", &pages], b"");
    let commands = commands_below(&[]);
    assert!(commands.len() > 15, "{commands:?}");
    let mut expected: Vec<String> = commands.iter().map(|path| format!("keyhole-{}.1", path.join("-"))).collect();
    expected.push("keyhole.1".to_owned());
    expected.sort_unstable();
    let mut made: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    made.sort_unstable();
    assert_eq!(made, expected);
    for page in made {
        let path = Path::new(&pages).join(&page);
        let mut groff = Command::new("groff");
        let printed = output(groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(&path));
        assert_eq!(printed, "", "{page}");
        let text = output(Command::new("man").args(["--warnings", "-E", "UTF-8", "-l", "-P", "cat"]).arg(&path));
        assert!(text.contains("NAME") && text.contains("SYNOPSIS") && !text.contains("warning"), "{page}: {text}");
    }
}

/// Returns the completions of a shell for the last word of a line.
fn completed_by_bash(line: &str) -> Vec<String> {
    let directory = Directory::new();
    let script = directory.path("completions");
    fs::write(&script, expect_success(&["completions", "bash"], b"")).unwrap();
    // Emulates bash's handling of the Tab key.
    let ask = r#"
        source "$1"
        read -ra COMP_WORDS <<< "$2"
        [[ $2 = *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        complete -p keyhole > /dev/null || exit 1
        read -ra how <<< "$(complete -p keyhole)"
        for i in "${!how[@]}"; do [[ ${how[i]} = -F ]] && name=${how[i + 1]}; done
        "$name" keyhole "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2> /dev/null
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let printed = output(Command::new("bash").args(["--norc", "-c", ask, "bash", &script, line]));
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn shells_complete_commands_and_options() {
    assert_eq!(completed_by_bash("keyhole ser"), ["serve"]);
    assert_eq!(completed_by_bash("keyhole bucket s"), ["set"]);
    assert_eq!(completed_by_bash("keyhole serve --gr"), ["--grace"]);
    assert_eq!(completed_by_bash("keyhole serve --io "), ["auto", "uring", "epoll"]);
    let all = completed_by_bash("keyhole ");
    assert!(all.contains(&"scrub".to_owned()), "{all:?}");
    for (shell, options) in [("zsh", "-n"), ("fish", "--no-execute")] {
        let directory = Directory::new();
        let script = directory.path("completions");
        fs::write(&script, expect_success(&["completions", shell], b"")).unwrap();
        // Shells are optional: the script of a missing shell is not checked.
        match Command::new(shell).arg(options).arg(&script).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => skipped("completions", &format!("{shell} is not installed")),
        }
    }
}

/// Runs the packaging script, which must fail, and returns its exit code and error output. `path` precedes
/// the directories of programs.
fn failed_packaging(arguments: &[&str], path: Option<&Path>) -> (Option<i32>, String) {
    let mut command = Command::new(top().join("crates/keyhole/packaging/package"));
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let directories = path.map(Path::to_owned).into_iter().chain(std::env::split_paths(&directories));
    command.args(arguments).env("PATH", std::env::join_paths(directories).unwrap());
    let output = command.output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn packaging_with_invalid_arguments_is_rejected() {
    let usage = "usage: crates/keyhole/packaging/package [--pgo [--profile FILE]] [CARGO-DEB ARGUMENT...]\n";
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for arguments in [&["--profile", profile][..], &["--pgo", "--profile"]] {
        assert_eq!(failed_packaging(arguments, None), (Some(2), usage.to_owned()), "{arguments:?}");
    }
    let missing = "package: missing profile `/missing/file`: expected a file that --pgo recorded\n".to_owned();
    assert_eq!(failed_packaging(&["--pgo", "--profile", "/missing/file"], None), (Some(1), missing));
}

/// The training needs a program of the compiler's LLVM, and fails before the first build without it.
#[test]
fn packaging_without_llvm_profdata_names_its_package() {
    let directory = Directory::new();
    let rustc = "#!/bin/sh\n[ \"$1\" = --print ] || printf 'host: machine\\nLLVM version: 18.1.0\\n'\n";
    let path = directory.path("rustc");
    fs::write(&path, rustc).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let expected = "package: missing llvm-profdata of LLVM 18: run `rustup component add llvm-tools`, or on Debian \
                    `apt install llvm-18`\n";
    assert_eq!(failed_packaging(&["--pgo"], Some(directory.home())), (Some(1), expected.to_owned()));
}

/// Returns the files of the package with mode and owner.
fn contents(package: &Path) -> Vec<(String, String)> {
    let listing = output(Command::new("dpkg-deb").arg("--contents").arg(package));
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let mode = words.next()?;
        let owner = words.next()?;
        let path = words.last()?;
        Some((path.to_owned(), format!("{mode} {owner}")))
    };
    listing.lines().filter_map(entry).collect()
}

#[test]
fn package_contains_expected_files() {
    let Some(package) = package() else {
        return skipped("the package", "not built: run crates/keyhole/packaging/package");
    };
    let contents = contents(&package);
    let expected = [
        ("./usr/bin/keyhole", "-rwxr-xr-x root/root"),
        ("./etc/keyhole/keyhole.toml", "-rw-r--r-- root/root"),
        ("./usr/lib/systemd/system/keyhole.service", "-rw-r--r-- root/root"),
        ("./usr/lib/systemd/system/keyhole-http.socket", "-rw-r--r-- root/root"),
        ("./usr/lib/systemd/system/keyhole-https.socket", "-rw-r--r-- root/root"),
        ("./usr/share/man/man1/keyhole-serve.1.gz", "-rw-r--r-- root/root"),
        ("./usr/share/bash-completion/completions/keyhole", "-rw-r--r-- root/root"),
        ("./usr/share/zsh/vendor-completions/_keyhole", "-rw-r--r-- root/root"),
        ("./usr/share/fish/vendor_completions.d/keyhole.fish", "-rw-r--r-- root/root"),
        ("./usr/share/doc/keyhole/copyright", "-rw-r--r-- root/root"),
        ("./usr/share/doc/keyhole/changelog.gz", "-rw-r--r-- root/root"),
        ("./usr/share/doc/keyhole/OPERATIONS.md", "-rw-r--r-- root/root"),
        ("./usr/share/doc/keyhole/REMOTES.md", "-rw-r--r-- root/root"),
    ];
    for (path, how) in expected {
        // The archive may name the owner by number.
        let found = contents.iter().find(|(other, _)| other == path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(found.1.replace("0/0", "root/root"), how, "{path}");
    }
    let field = |name: &str| output(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name));
    assert_eq!(field("Package").trim(), "keyhole");
    let depends = field("Depends");
    assert!(depends.contains("libc6 (>= 2."), "{depends}");

    let directory = Directory::new();
    let root = directory.path("root");
    output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root));
    let installed = format!("{root}/usr/bin/keyhole");
    let printed = output(Command::new(&installed).arg("--version"));
    assert_eq!(printed, output(Command::new(binary()).arg("--version")));
    assert!(fs::metadata(&installed).unwrap().size() < 40 << 20, "the binary is not stripped");
    let unit = fs::read_to_string(format!("{root}/usr/lib/systemd/system/keyhole.service")).unwrap();
    assert_eq!(unit, fs::read_to_string(top().join("crates/keyhole/packaging/keyhole.service")).unwrap());
}

/// All dependencies are available in Debian 12 without other packages.
#[test]
fn package_dependencies_are_in_debian() {
    let Some(package) = package() else { return skipped("the package", "not built") };
    let package = fs::canonicalize(package).unwrap();
    let printed = output(
        Command::new("apt-get")
            .args(["-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1", "install", "--simulate"])
            .arg("--no-install-recommends")
            .arg(&package),
    );
    for part in ["Inst keyhole ", "Inst libc6 (2.36"] {
        assert!(printed.contains(part), "{part} in: {printed}");
    }
}

/// Installs the package in a layer over this system, verifies it, rates its exposure, reinstalls it
/// over an edited configuration, and purges it.
#[test]
fn package_installs_and_purges() {
    let Some(package) = package() else { return skipped("the package", "not built") };
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return skipped("the package's installation", "only root may install");
    }
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/install-package.sh");
    let printed = output(
        Command::new("unshare").args(["--mount", "--pid", "--fork", tool]).arg(fs::canonicalize(package).unwrap()),
    );
    assert!(printed.contains("installed, checked, purged"), "{printed}");
    println!("{printed}");
}
