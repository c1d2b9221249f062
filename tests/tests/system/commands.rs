//! Commands that need no node: keys, sealed object files, bare messages.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keyhole_tests::command::{Directory, expect_failure, expect_success};
use keyhole_tests::data::{self, base64, md5};
use keyhole_tests::node::binary;
use serde_json::Value;

fn vectors() -> PathBuf {
    keyhole_tests::top().join("crates/keyhole-core/tests/vectors")
}

#[test]
fn key_files_are_created_shown_and_not_overwritten() {
    let directory = Directory::new();
    let path = directory.path("ssec.key");
    let printed = String::from_utf8(expect_success(&["key", "new", &path], b"")).unwrap();
    let key = fs::read(&path).unwrap();
    assert_eq!((key.len(), fs::metadata(&path).unwrap().permissions().mode() & 0o777), (32, 0o600));
    assert_eq!(printed, format!("ENCRYPTION_KEY={}\nKEY_DIGEST={}\n", base64(&key), base64(&md5(&key))));
    assert_eq!(String::from_utf8(expect_success(&["key", "show", &path], b"")).unwrap(), printed);

    let (_, stderr) = expect_failure(1, &["key", "new", &path], b"");
    assert!(stderr.contains("exists"), "{stderr}");
    assert_eq!(fs::read(&path).unwrap(), key, "the key is not overwritten");
    for len in [0, 31, 33] {
        fs::write(directory.path("other"), vec![1; len]).unwrap();
        expect_failure(2, &["key", "show", &directory.path("other")], b"");
    }
    expect_failure(1, &["key", "show", &directory.path("absent")], b"");
}

#[test]
fn sealed_file_opens_to_its_plaintext() {
    let directory = Directory::new();
    let key = directory.key("key");
    let other = directory.key("other");
    let name = ["--bucket", "edge", "--name", "a/b ä"];
    for len in [0, 1, 16_383, 16_384, 16_385, 3_000_000] {
        let plaintext = data::bytes(len as u64, len);
        let described = ["--content-type", "text/plain", "--meta", "Colour=blue", "--meta", "a=b=c"];
        let seal = [&["seal", "--key", &key][..], &name, &described].concat();
        let open = ["open", "--key", &key];
        // Through pipes, and through files.
        let sealed = expect_success(&seal, &plaintext);
        assert!(expect_success(&open, &sealed) == plaintext, "{len}");
        let (plain_path, sealed_path, back) =
            (directory.path("plain"), directory.path("sealed"), directory.path("back"));
        fs::write(&plain_path, &plaintext).unwrap();
        expect_success(&[&seal[..], &[&plain_path, &sealed_path]].concat(), b"");
        assert_eq!(fs::metadata(&sealed_path).unwrap().len(), sealed.len() as u64);
        expect_success(&[&open[..], &name, &[&sealed_path, &back]].concat(), b"");
        assert!(fs::read(&back).unwrap() == plaintext, "{len}");
        assert!(!data::contains(&sealed, b"blue") && (len < 64 || !data::contains(&sealed, &plaintext[..64])));

        let inspected: Value = serde_json::from_slice(&expect_success(&["inspect", "--json"], &sealed)).unwrap();
        assert_eq!(inspected["bucket"], "edge");
        assert_eq!(inspected["key"], "a/b ä");
        assert_eq!(inspected["plaintext_length"], len);
        assert_eq!(inspected["file_length"], sealed.len());
        assert_eq!(inspected["etag"].as_str().unwrap().len(), 32);

        // Another key or name, or a byte more, less or changed: exit code 3, and only verified data
        // are written.
        let (written, _) = expect_failure(3, &["open", "--key", &other], &sealed);
        assert!(written.is_empty());
        let (written, stderr) = expect_failure(3, &[&open[..], &["--name", "c"]].concat(), &sealed);
        assert!(written.is_empty() && stderr.contains("a/b ä"), "{stderr}");
        expect_failure(3, &[&open[..], &["--bucket", "other"]].concat(), &sealed);
        expect_failure(3, &open, &[&sealed[..], b"x"].concat());
        for cut in [0, 1, 20, 100, sealed.len() - 17, sealed.len() - 1] {
            let (written, stderr) = expect_failure(3, &open, &sealed[..cut]);
            assert!(plaintext.starts_with(&written), "cut at {cut}");
            assert!(written.is_empty() || stderr.contains(&format!("{} verified bytes", written.len())), "{stderr}");
            expect_failure(3, &["inspect"], &sealed[..cut]);
        }
        let mut damaged = sealed.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let (written, stderr) = expect_failure(3, &open, &damaged);
        assert_eq!(written.len(), len / 16_384 * 16_384, "only the chunks before the damaged one are written");
        assert!(stderr.contains(&format!("{} verified bytes", written.len())), "{stderr}");
    }
}

#[test]
fn vector_files_open_unless_damaged() {
    let directory = Directory::new();
    let cases: Value = serde_json::from_slice(&fs::read(vectors().join("files.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = |name: &str| case[name].as_str().unwrap();
        let key = directory.path("key");
        let file = vectors().join(text("file"));
        fs::write(&key, hex::decode(text("customer_key")).unwrap()).unwrap();
        let name = ["--bucket", text("bucket"), "--name", text("key")];
        let open = [&["open", "--key", &key][..], &name].concat();
        let check = |plaintext: &[u8]| {
            assert_eq!(keyhole_tests::sigv4::sha256_hex(plaintext), text("plaintext_sha256"), "{}", text("file"));
        };
        let bytes = fs::read(&file).unwrap();
        if case["bound"] == true {
            check(&expect_success(&[&open[..], &[file.to_str().unwrap()]].concat(), b""));
            check(&expect_success(&open, &bytes));
        } else {
            let (written, stderr) = expect_failure(3, &open, &bytes);
            assert!(written.is_empty() && stderr.contains("--allow-unbound"), "{stderr}");
            check(&expect_success(&[&open[..], &["--allow-unbound"]].concat(), &bytes));
        }
        let inspected: Value = serde_json::from_slice(&expect_success(&["inspect", "--json"], &bytes)).unwrap();
        assert_eq!(inspected["etag"], case["etag"]);
        assert_eq!(inspected["plaintext_length"], case["plaintext_length"]);
        let parts = inspected["parts"].as_array().unwrap().iter().map(|part| part["part_number"].as_u64().unwrap());
        let expected = case["parts"].as_array().unwrap().iter().map(|part| part.as_u64().unwrap());
        assert!(parts.eq(expected.filter(|number| *number > 0)), "{}", text("file"));
        let shown = String::from_utf8(expect_success(&["inspect", file.to_str().unwrap()], b"")).unwrap();
        assert!(shown.contains(text("etag")), "{shown}");
        // A truncated file.
        expect_failure(3, &open, &bytes[..bytes.len() - 1]);
        check_damaged_tables(case, &bytes, &open, &directory.path("damaged"));
    }
}

/// Damages each byte of the table and samples of the part checksums: exit code 3, and no data are
/// written of a body with a damaged entry. Reads from a file and from a pipe, whose length checks
/// differ.
fn check_damaged_tables(case: &Value, bytes: &[u8], open: &[&str], path: &str) {
    let be = |at: usize, len: usize| bytes[at..at + len].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    // "KEYHOLE1", two names, the sealed head, the number of bodies.
    let mut at = 8;
    for width in [2, 2, 4] {
        at += width + be(at, width);
    }
    let table = at + 4;
    let count = be(at, 4);
    let infos = table + 16 * count;
    let info_lens: Vec<usize> = (0..count).map(|i| be(table + 16 * i + 12, 4)).collect();
    let open = if case["bound"] == true { open.to_vec() } else { [open, &["--allow-unbound"]].concat() };
    let check = |at: usize, bit: u8, body: Option<usize>| {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << bit;
        fs::write(path, &damaged).unwrap();
        let (from_file, stderr) = expect_failure(3, &[&open[..], &[path]].concat(), b"");
        let (from_pipe, _) = expect_failure(3, &open, &damaged);
        assert!(from_file == from_pipe, "byte {at}: {stderr}");
        match body {
            Some(0) => assert!(from_file.is_empty() && stderr.contains("checksums of part"), "byte {at}: {stderr}"),
            Some(_) => assert!(!from_file.is_empty() && stderr.contains("checksums of part"), "byte {at}: {stderr}"),
            None => {}
        }
    };
    (table..infos).for_each(|at| check(at, 0, None));
    (table..infos).step_by(3).for_each(|at| check(at, 7, None));
    let mut at = infos;
    for (body, len) in info_lens.into_iter().enumerate() {
        // Salt, commitment, map, tag.
        (at..at + len)
            .step_by(7)
            .chain((at + len).checked_sub(1).filter(|_| len > 0))
            .for_each(|at| check(at, 0, Some(body)));
        at += len;
    }
    // A first length beyond the end of the file.
    let inspect = |damaged: &[u8]| {
        fs::write(path, damaged).unwrap();
        expect_failure(3, &["inspect", path], b"");
        expect_failure(3, &["inspect"], damaged);
    };
    for byte in 4..12 {
        let mut damaged = bytes.to_vec();
        damaged[table + byte] ^= 1;
        inspect(&damaged);
    }
}

#[test]
fn vector_messages_seal_and_open() {
    let vectors: Value = serde_json::from_slice(&fs::read(vectors().join("chunked.json")).unwrap()).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let text = |name: &str| case[name].as_str().unwrap();
        let len = case["plaintext_length"].as_u64().unwrap() as usize;
        let plaintext: Vec<u8> = (0..len).map(|i| (7 * i + 13 * (i >> 8) + 5) as u8).collect();
        let context = ["--key-hex", text("input_key"), "--context-hex", text("context")];
        let seal = [&["chunked", "seal"][..], &context, &["--salt-hex", text("salt")]].concat();
        let message = expect_success(&seal, &plaintext);
        assert_eq!(keyhole_tests::sigv4::sha256_hex(&message), text("message_sha256"), "{}", text("name"));
        let open = [&["chunked", "open"][..], &context].concat();
        assert!(expect_success(&open, &message) == plaintext, "{}", text("name"));
        expect_failure(3, &open, &[&message[..], b"x"].concat());
        expect_failure(3, &open, &message[..message.len() - 1]);
        let wrong = ["chunked", "open", "--key-hex", text("input_key"), "--context-hex", "00"];
        assert!(expect_failure(3, &wrong, &message).0.is_empty());
    }
    expect_failure(2, &["chunked", "seal", "--key-hex", "abcd"], b"");
    expect_failure(2, &["chunked", "seal"], b"");
    let key = "00".repeat(32);
    let random = || expect_success(&["chunked", "seal", "--key-hex", &key], b"x");
    assert_ne!(random(), random(), "each message has its own salt");
}

/// Commands that fail, or that would overwrite their input, keep all existing data.
#[test]
fn failed_command_preserves_existing_files() {
    let directory = Directory::new();
    let key = directory.key("key");
    let (plain, link, hard, sealed) =
        (directory.path("plain"), directory.path("link"), directory.path("hard"), directory.path("sealed"));
    let plaintext = data::bytes(1, 50_000);
    fs::write(&plain, &plaintext).unwrap();
    std::os::unix::fs::symlink("plain", &link).unwrap();
    fs::hard_link(&plain, &hard).unwrap();
    let hex = "00".repeat(32);
    let seal = ["seal", "--key", &key, "--bucket", "b", "--name", "k"];
    let open = ["open", "--key", &key];
    let chunked_seal = ["chunked", "seal", "--key-hex", &hex];
    let chunked_open = ["chunked", "open", "--key-hex", &hex];
    expect_success(&[&seal[..], &[&plain, &sealed]].concat(), b"");
    let message = expect_success(&chunked_seal, &plaintext);
    let message_path = directory.path("message");
    fs::write(&message_path, &message).unwrap();
    let all = || {
        let mut names: Vec<_> = fs::read_dir(directory.home()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = all();

    // Input and output are one file under different names, or the output is the key.
    for output in [&plain, &link, &hard, &key] {
        let (_, stderr) = expect_failure(2, &[&seal[..], &[&plain, output]].concat(), b"");
        assert!(stderr.contains(output.as_str()), "{stderr}");
    }
    expect_failure(2, &[&chunked_seal[..], &[&hard, &link]].concat(), b"");
    expect_failure(2, &[&open[..], &[&sealed, &sealed]].concat(), b"");
    expect_failure(2, &[&open[..], &[&sealed, &key]].concat(), b"");
    expect_failure(2, &[&chunked_open[..], &[&message_path, &message_path]].concat(), b"");
    // Redirections are detected as well.
    let append = fs::OpenOptions::new().append(true).open(&plain).unwrap();
    let redirected = Command::new(binary()).args(seal).stdin(File::open(&plain).unwrap()).stdout(append).status();
    assert_eq!(redirected.unwrap().code(), Some(2));
    let named = [&seal[..], &["-", &plain]].concat();
    let redirected = Command::new(binary()).args(named).stdin(File::open(&plain).unwrap()).status();
    assert_eq!(redirected.unwrap().code(), Some(2));
    assert!(all() == before);

    // A failure before verification leaves existing files unchanged and creates none.
    let other = directory.key("other");
    let before = all();
    expect_failure(3, &["open", "--key", &other, &sealed, &plain], b"");
    expect_failure(3, &[&open[..], &["-", &plain]].concat(), b"no sealed object");
    expect_failure(2, &["seal", "--key", &key, "--bucket", "", "--name", "k", &sealed, &plain], b"");
    expect_failure(1, &[&seal[..], &[&directory.path("absent"), &plain]].concat(), b"");
    expect_failure(3, &["chunked", "open", "--key-hex", &"11".repeat(32), &message_path, &plain], b"");
    expect_failure(3, &[&chunked_open[..], &["-", &plain]].concat(), &message[..55]);
    expect_failure(3, &[&chunked_open[..], &["-", &plain]].concat(), &message[..60]);
    expect_failure(1, &[&seal[..], &[&plain, &directory.path("no/directory")]].concat(), b"");
    expect_failure(3, &["chunked", "open", "--key-hex", &"11".repeat(32), &message_path, &directory.path("new")], b"");
    let sealed_bytes = fs::read(&sealed).unwrap();
    let mut damaged = sealed_bytes.clone();
    damaged[sealed_bytes.len() - 50_000] ^= 1;
    let (_, stderr) = expect_failure(3, &[&open[..], &["-", &plain]].concat(), &damaged);
    assert!(stderr.contains("; 0 verified bytes were written"), "{stderr}");
    assert!(all() == before);

    // Verified data are kept.
    let back = directory.path("back");
    for (arguments, input) in [(&open[..], &sealed_bytes[..]), (&chunked_open[..], &message[..])] {
        fs::write(&back, b"another file").unwrap();
        let (_, stderr) = expect_failure(3, &[arguments, &["-", &back]].concat(), &input[..input.len() - 1]);
        assert!(stderr.contains("; 49152 verified bytes were written"), "{stderr}");
        assert!(fs::read(&back).unwrap() == plaintext[..49_152]);
    }

    // A replaced file keeps its permissions, and a link to it stays a link; a new file has default
    // permissions.
    fs::set_permissions(&back, fs::Permissions::from_mode(0o640)).unwrap();
    let link = directory.path("link-to-back");
    std::os::unix::fs::symlink("back", &link).unwrap();
    expect_success(&[&open[..], &[&sealed, &link]].concat(), b"");
    assert!(fs::read(&back).unwrap() == plaintext && fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&back), 0o640);
    assert_eq!(mode(&sealed), mode(&plain));
    // Devices are written directly, and a bare file name needs no directory.
    expect_success(&[&open[..], &[&sealed, "/dev/null"]].concat(), b"");
    let status = Command::new(binary()).args(open).args(["sealed", "name"]).current_dir(directory.home()).status();
    assert!(status.unwrap().success() && fs::read(directory.path("name")).unwrap() == plaintext);
    assert!(!all().iter().any(|(_, path)| path.file_name().unwrap().to_str().unwrap().starts_with('.')));
}

/// Nothing waits for the other end of a FIFO; directories are named as such.
#[test]
fn other_kinds_of_file_are_refused() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let directory = Directory::new();
    let key = directory.key("key");
    let plain = directory.path("plain");
    fs::write(&plain, "text").unwrap();
    let fifo = directory.path("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let home = directory.home().to_str().unwrap().to_owned();
    let names = ["--bucket", "b", "--name", "k"];
    for (other, kind) in [(&fifo, "FIFO"), (&home, "directory")] {
        for (code, arguments) in [
            (2, &[&["seal", "--key", &key][..], &names, &[other, "-"]].concat()[..]),
            (1, &[&["seal", "--key", other][..], &names, &[&plain, "-"]].concat()),
            (2, &["open", "--key", &key, other, "-"]),
            (2, &["inspect", other]),
            (1, &["key", "show", other]),
            (1, &["tls", "show", other]),
        ] {
            let message = expect_failure(code, arguments, b"").1;
            assert!(message.contains(kind), "{arguments:?}: {message}");
        }
    }
    // An output that nothing reads.
    let seal = [&["seal", "--key", &key][..], &names, &[&plain, &fifo]].concat();
    assert!(expect_failure(1, &seal, b"").1.contains("nothing reads"));
}

#[test]
fn invalid_arguments_exit_with_code_2() {
    let directory = Directory::new();
    let key = directory.key("key");
    let seal = |arguments: &[&str]| expect_failure(2, &[&["seal", "--key", &key][..], arguments].concat(), b"x");
    seal(&[]);
    seal(&["--bucket", "b", "--name", ""]);
    seal(&["--bucket", "b", "--name", &"k".repeat(1025)]);
    seal(&["--bucket", &"b".repeat(64), "--name", "k"]);
    seal(&["--bucket", "b", "--name", "k", "--meta", "no-value"]);
    seal(&["--bucket", "b", "--name", "k", "--meta", "a b=c"]);
    seal(&["--bucket", "b", "--name", "k", "--meta", "a=line\nbreak"]);
    seal(&["--bucket", "b", "--name", "k", "--meta", "a=1", "--meta", "A=2"]);
    expect_failure(1, &["inspect", &directory.path("absent")], b"");
    expect_failure(1, &["open", "--key", &key, &directory.path("absent")], b"");
    expect_failure(3, &["inspect"], b"not a sealed object");
}

#[test]
fn bench_prints_every_figure() {
    let directory = Directory::new();
    let svg = directory.path("plot.svg");
    let arguments = ["bench", "--time", "100", "--sizes", "4KiB,16KiB", "--svg", &svg];
    let table = String::from_utf8(expect_success(&arguments, b"")).unwrap();
    for part in ["seal, GB/s, 1 core", "open, GB/s, 1 core", "aes-gcm", "aws-lc-rs AES-256-CTR", "memcpy", "16.0 KiB"] {
        assert!(table.contains(part), "{part} in\n{table}");
    }
    let plot = fs::read_to_string(&svg).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("Keyhole accelerated"), "{plot}");
    let arguments = ["bench", "--time", "100", "--sizes", "1KiB", "--one-core", "--json"];
    let report: Value = serde_json::from_slice(&expect_success(&arguments, b"")).unwrap();
    assert!(!report["machine"]["instructions"].as_array().unwrap().is_empty());
    let figures = report["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 8 * 2);
    assert!(figures.iter().all(|figure| figure["gb_per_s"].as_f64().unwrap() > 0.0));
    expect_failure(2, &["bench", "--sizes", "0"], b"");
}

#[test]
fn bench_disk_without_usable_arguments_fails() {
    let directory = Directory::new();
    expect_failure(2, &["bench-disk", &directory.path("")], b"");
    expect_failure(1, &["bench-disk", "--commits", &directory.path("absent")], b"");
}

/// Uses small stores: the values of the figures are not checked.
#[test]
#[ignore = "minutes on a slow disk; tests/run --long runs it"]
fn bench_disk_prints_figures_and_their_limits() {
    let directory = Directory::new();
    let within = directory.path("");
    let small = ["--size", "64MiB", "--objects", "3000", "--large", "128MiB", "--turns", "1"];
    let arguments = [&["bench-disk", &within, "--fill", "--startup", "--json"][..], &small].concat();
    let report: Value = serde_json::from_slice(&expect_success(&arguments, b"")).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let figure = |what: &str| figures.iter().find(|figure| figure["what"].as_str().unwrap().contains(what));
    for what in ["ready after SIGKILL", "resident memory", "objects that fit, round 10", "random overwriting: write"] {
        assert!(figure(what).unwrap()["value"].as_f64().unwrap() >= 0.0, "{what} in {figures:?}");
    }
    assert_eq!(figure("refuses with 507").unwrap()["holds"], true, "{figures:?}");
    assert_eq!(fs::read_dir(&within).unwrap().count(), 0, "everything is removed");
}

/// Ten GiB through `seal` and `open`, from a pipe and from a file, in constant memory.
#[test]
#[ignore = "10 GiB; tests/run --long runs it"]
fn ten_gib_are_sealed_and_opened_in_constant_memory() {
    const LEN: u64 = 10 << 30;
    const RESIDENT_MAX_KIB: u64 = 32 << 10;
    let directory = Directory::new();
    let key = directory.key("key");
    let sealed = directory.path("sealed");
    let spawn = |arguments: &[&str], from: Stdio, to: Stdio| {
        Command::new(binary()).args(arguments).stdin(from).stdout(to).spawn().unwrap()
    };
    let peak = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    for through_pipe in [true, false] {
        let seal = ["seal", "--key", &key, "--bucket", "b", "--name", "k"];
        if through_pipe {
            let mut child = spawn(&seal, Stdio::piped(), File::create(&sealed).unwrap().into());
            let pid = child.id();
            let mut stdin = child.stdin.take().unwrap();
            let block = vec![0x5a; 1 << 20];
            (0..LEN >> 20).for_each(|_| stdin.write_all(&block).unwrap());
            let resident = peak(pid);
            drop(stdin);
            assert!(child.wait().unwrap().success());
            println!("seal of a pipe: {} MiB resident", resident >> 10);
            assert!(resident < RESIDENT_MAX_KIB);
        } else {
            let plain = directory.path("plain");
            // A sparse file reads as zeros.
            File::create(&plain).unwrap().set_len(LEN).unwrap();
            expect_success(&[&seal[..], &[&plain, &sealed]].concat(), b"");
        }
        let mut child = spawn(&["open", "--key", &key], File::open(&sealed).unwrap().into(), Stdio::piped());
        let pid = child.id();
        let mut stdout = child.stdout.take().unwrap();
        let expected = if through_pipe { 0x5a } else { 0 };
        let mut block = vec![0; 1 << 20];
        let mut len = 0;
        let mut resident = 0;
        loop {
            let read = stdout.read(&mut block).unwrap();
            if read == 0 {
                break;
            }
            assert!(block[..read].iter().all(|byte| *byte == expected));
            len += read as u64;
            if len > LEN - (64 << 20) {
                resident = resident.max(peak(pid));
            }
        }
        assert!(child.wait().unwrap().success());
        println!("open: {} MiB resident", resident >> 10);
        assert_eq!(len, LEN);
        assert!(resident < RESIDENT_MAX_KIB);
        fs::remove_file(Path::new(&sealed)).unwrap();
    }
}
