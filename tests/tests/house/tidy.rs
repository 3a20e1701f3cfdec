//! Rules about the source: where crates may be named, and how long files and functions may be.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest file, in lines of production code.
const FILE_LINES_MAX: usize = 500;

/// The longest function, in lines from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// A file of Rust.
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// The source without the test module at its end.
    pub fn production(&self) -> &str {
        let tests = self.text.match_indices("\n#[cfg(test)]\n").map(|(at, _)| at).find(|at| {
            let next = self.text[at + 1..].lines().skip(1).find(|line| !line.starts_with("#["));
            next.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        });
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }
}

pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let members = [
        "protocol",
        "link",
        "terminal",
        "store",
        "client",
        "server",
        "mount",
        "packaging",
        "tests",
    ];
    let mut waiting: Vec<PathBuf> = members.map(|member| root.join(member)).to_vec();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            waiting.extend(entries.filter(|path| !path.ends_with("target")));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}

/// Fails the test with all violations of a rule.
#[track_caller]
fn check(rule: &str, broken: impl Fn(&Source) -> Option<String>) {
    let places: Vec<String> = sources()
        .iter()
        .filter_map(|source| broken(source).map(|what| format!("{}: {what}", source.path)))
        .collect();
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    check("a file this long has two ideas in it", |source| {
        let lines = if source.is_test() { 0 } else { source.production().lines().count() };
        (lines > FILE_LINES_MAX).then(|| format!("{lines} lines"))
    });
}

#[test]
fn no_function_is_too_long() {
    check("a function this long does two things", |source| {
        (!source.is_test()).then(|| longest(&source.text)).flatten()
    });
}

/// A function that is too long, if there is one; found by the indentation that rustfmt gives.
fn longest(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        // A trait method without a body ends with its signature.
        let signature_end = lines[start..].iter().find(|line| line.ends_with(['{', ';']));
        if !is_function(line.trim_start()) || signature_end.is_some_and(|end| end.ends_with(';')) {
            continue;
        }
        // A mere declaration in a trait has no lines of its own.
        let is_whole = |line: &&&str| line.ends_with(['{', ';']);
        if lines[start..].iter().find(is_whole).is_some_and(|line| line.ends_with(';')) {
            continue;
        }
        let end = format!("{indent}}}");
        let len = lines[start..].iter().position(|line| **line == end).map_or(0, |at| at + 1);
        if len > FUNCTION_LINES_MAX {
            return Some(format!("line {}: {len} lines: {}", start + 1, line.trim()));
        }
    }
    None
}

fn is_function(line: &str) -> bool {
    let words = ["pub(super) ", "pub(crate) ", "pub ", "const ", "async ", "unsafe "];
    let mut rest = line;
    while let Some(word) = words.iter().find(|word| rest.starts_with(**word)) {
        rest = &rest[word.len()..];
    }
    rest.starts_with("fn ") && !line.ends_with(';') && !line.ends_with('}')
}

#[test]
fn every_file_says_what_it_is() {
    check("a file begins with a //! header", |source| {
        (!source.text.starts_with("//!")).then(|| "no header".to_owned())
    });
}

#[test]
fn each_library_is_named_only_where_it_belongs() {
    let places = [
        ("fuser", "mount/src/fuse/"),
        ("bincode", "protocol/src/codec.rs"),
        ("rusqlite", "store/src/"),
    ];
    for (library, place) in places {
        check(&format!("{library} is named only in {place}"), |source| {
            let named = source.text.lines().find(|line| names(line, library))?;
            let at_home = source.path.starts_with(place) || source.is_test();
            (!at_home).then(|| named.trim().to_owned())
        });
    }
}

#[test]
fn no_program_panics_because_nobody_reads_what_it_says() {
    check("a line is written where that may fail", |source| {
        let panics = |line: &&str| {
            ["println!(", "eprintln!(", "eprint!("].iter().any(|way| line.contains(way))
        };
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let is_ours = !source.is_test()
            && !source.path.starts_with("packaging/")
            && !source.path.starts_with("tests/");
        let found = source.production().lines().filter(is_code).find(panics)?;
        is_ours.then(|| found.trim().to_owned())
    });
}

/// Anything that would make two runs of the client's core with the same inputs differ, or wait.
const IMPURE: [&str; 9] = [
    "tokio",
    "Instant::now",
    "SystemTime",
    "RandomState",
    "HashMap",
    "HashSet",
    "std::thread",
    "async ",
    "spawn(",
];

#[test]
fn the_clients_core_has_no_clock_no_randomness_and_no_tasks() {
    check("client/src/core is pure", |source| {
        let line = source.production().lines().find(|line| {
            let code = line.split("//").next().unwrap();
            IMPURE.iter().any(|word| code.contains(word))
        })?;
        let is_core = source.path.starts_with("client/src/core/") && !source.is_test();
        is_core.then(|| line.trim().to_owned())
    });
}

/// The most files side by side in a folder: more of them fall into families.
const FILES_MAX: usize = 12;

#[test]
fn no_folder_is_a_heap() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    let is_ours =
        |source: &Source| source.path.contains("/src/") || source.path.starts_with("tests/tests/");
    for source in sources().into_iter().filter(is_ours) {
        let (folder, name) = source.path.rsplit_once('/').unwrap();
        if name != "mod.rs" && name != "lib.rs" {
            *folders.entry(folder.to_owned()).or_default() += 1;
        }
    }
    let heaps: Vec<_> = folders.iter().filter(|(_, files)| **files > FILES_MAX).collect();
    assert!(heaps.is_empty(), "{heaps:?}");
}

/// Whether a line of code, not a comment, names a crate.
fn names(line: &str, library: &str) -> bool {
    let code = line.split("//").next().unwrap();
    [format!("{library}::"), format!("use {library};")].iter().any(|use_| code.contains(use_))
}

#[test]
fn what_people_build_has_no_bugs_that_can_be_planted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let built = manifest.lines().find(|line| line.starts_with("default-members = ")).unwrap();
    assert!(built.contains("\"mount\"") && !built.contains("\"tests\""), "{built}");
    for member in ["protocol", "link", "terminal", "store", "client", "server", "mount"] {
        let manifest = fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
        let uses = manifest.lines().filter(|line| line.contains("planted-bugs"));
        assert_eq!(uses.count(), usize::from(member == "client"), "{member} uses them");
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "todo".to_owned() + "!("];
    check("what is not done is not in the code", |source| {
        let line = source.text.lines().find(|line| words.iter().any(|word| line.contains(word)))?;
        Some(line.trim().to_owned())
    });
}

#[test]
fn production_code_does_not_unwrap() {
    check("an error is handled, or `expect` says why there is none", |source| {
        let line = source.production().lines().find(|line| line.contains(".unwrap()"))?;
        (!source.is_test()).then(|| line.trim().to_owned())
    });
}

#[test]
fn each_test_that_the_semantics_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let tests: String = sources().into_iter().filter(Source::is_test).map(|s| s.text).collect();
    // Test names have more words than any other code on the page.
    let names = page.split('`').filter(|word| word.matches('_').count() > 3 && !word.contains(' '));
    let names: Vec<&str> = names.collect();
    assert!(names.len() > 40, "{names:?}");
    let missing: Vec<_> =
        names.iter().filter(|name| !tests.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn each_path_that_the_documents_name_leads_to_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
    let (mut missing, mut count) = (Vec::new(), 0);
    for page in pages(root) {
        let text = fs::read_to_string(&page).unwrap();
        let words = text.split(|c: char| !is_of_path(c)).map(|word| word.trim_end_matches('.'));
        for word in words.filter(|word| word.contains("/src/") || word.contains("/tests/")) {
            let path = root.join(word);
            count += 1;
            if !path.exists() && !path.with_extension("rs").exists() {
                missing.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(count > 20, "{count}");
    assert!(missing.is_empty(), "{missing:?}");
}

/// The documents.
fn pages(root: &Path) -> Vec<PathBuf> {
    let found =
        [root.to_owned(), root.join("docs")].map(|directory| fs::read_dir(directory).unwrap());
    let paths = found.into_iter().flatten().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

#[test]
fn the_oracle_sees_a_function_that_is_too_long() {
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(70));
    assert!(longest(&long).is_some());
    let short = format!("fn short() {{\n{}}}\n", "    step();\n".repeat(68));
    assert!(longest(&short).is_none());
    let tests = "fn a() {}\n\n#[cfg(test)]\n#[allow(unused)]\nmod tests {\n}\n".to_owned();
    let source = Source { path: "server/src/x.rs".to_owned(), text: tests };
    assert_eq!(source.production(), "fn a() {}\n");
}
