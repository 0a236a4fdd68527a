//! Every command that the documentation, the scripts and the help print is one that the command line takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap::error::ErrorKind;
use lookupd_perf::Cli;

const PROGRAM: &str = "lookupd-perf";

/// Stands for what only the reader or a script knows.
const VALUES: [(&str, &str); 10] = [
    ("{tcp}", "127.0.0.1:4160"),
    ("{http}", "127.0.0.1:4161"),
    ("$tcp", "127.0.0.1:4160"),
    ("$http", "127.0.0.1:4161"),
    ("$server", "1"),
    ("${pids#,}", "1,2"),
    ("$instances", "--tcp 127.0.0.1:4160,127.0.0.1:4260 --http 127.0.0.1:4161,127.0.0.1:4261"),
    ("\"$1\"", "20m"),
    ("\"${@:2}\"", ""),
    (" ... ", " stock=nsqlookupd "),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Files of a folder whose names end so.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.is_file() && path.to_string_lossy().ends_with(end)).collect()
}

/// The arguments of each command of this program in lines of a shell, those within the words of others too.
fn in_shell(text: &str) -> Vec<Vec<String>> {
    let mut text = text.replace("\\\n", " ");
    while let Some((before, (_, after))) =
        text.split_once("$(pidof ").and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
    {
        text = format!("{before}1{after}");
    }
    for (name, value) in VALUES {
        text = text.replace(name, value);
    }
    let lines = text.lines().filter(|line| line.contains(PROGRAM) && !line.trim_start().starts_with('#'));
    lines.flat_map(|line| in_words(&shlex::split(line).unwrap_or_else(|| panic!("quotes: {line}")))).collect()
}

fn in_words(words: &[String]) -> Vec<Vec<String>> {
    let mut found: Vec<_> =
        words.iter().filter(|word| word.contains(' ')).flat_map(|word| in_shell(word)).collect();
    let is_program = |word: &String| {
        let program = word.rsplit(['/', '=']).next();
        program == Some(PROGRAM)
    };
    if let Some(at) = words.iter().position(is_program) {
        let mut arguments = &words[at + 1..];
        if at > 0 && ["-p", "--package"].contains(&words[at - 1].as_str()) {
            // cargo's own come first.
            let Some(separator) = arguments.iter().position(|word| word == "--") else { return found };
            arguments = &arguments[separator + 1..];
        }
        let end = arguments.iter().position(|word| ["&", "&&", "|", ";"].contains(&word.as_str()));
        found.push(arguments[..end.unwrap_or(arguments.len())].to_vec());
    }
    found
}

/// The commands of a Markdown text: in its blocks, and in its spans.
fn in_markdown(text: &str) -> Vec<Vec<String>> {
    let (mut blocks, mut prose, mut is_block) = (String::new(), String::new(), false);
    for line in text.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else {
            // Blocks that are indented have no other mark.
            let part = if is_block || line.starts_with("    ") { &mut blocks } else { &mut prose };
            part.push_str(line);
            part.push('\n');
        }
    }
    let mut found = in_shell(&blocks);
    for span in prose.split('`').skip(1).step_by(2) {
        let mut commands = in_shell(&span.replace('\n', " "));
        for arguments in &mut commands {
            // The name of a scenario stands for the scenario.
            if arguments.len() < 2 {
                arguments.push("--help".into());
            }
        }
        found.extend(commands);
    }
    found
}

/// The commands among the examples of a help; what explains one stands behind it, after spaces.
fn in_examples(help: &str) -> Vec<Vec<String>> {
    let explained = |line: &str| Some(line.trim_start().split_once("   ")?.0.to_owned());
    let lines = help.lines().map(|line| explained(line).unwrap_or_else(|| line.to_owned()));
    in_shell(&lines.collect::<Vec<_>>().join("\n"))
}

/// Checks that each is taken; how many there are.
fn check(source: &str, commands: &[Vec<String>]) -> usize {
    for arguments in commands {
        let words = [PROGRAM].into_iter().chain(arguments.iter().map(String::as_str));
        if let Err(error) = Cli::command().try_get_matches_from(words) {
            assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{source}: {arguments:?}: {error}");
        }
    }
    commands.len()
}

#[test]
fn commands_of_the_documentation_are_taken() {
    let perf = in_markdown(&read(root().join("perf/README.md")));
    assert!(check("perf/README.md", &perf) >= 6, "{perf:?}");
    check("README.md", &in_markdown(&read(root().join("README.md"))));
    let pages = files("docs", ".md");
    let count: usize = pages.iter().map(|path| check(&path.to_string_lossy(), &in_markdown(&read(path)))).sum();
    assert!(count > 0, "{pages:?}");
}

#[test]
fn commands_of_the_scripts_are_taken() {
    let scripts = files(".ci", "");
    let count: usize = scripts.iter().map(|path| check(&path.to_string_lossy(), &in_shell(&read(path)))).sum();
    assert!(count > 0, "{scripts:?}");
}

#[test]
fn examples_of_every_help_are_taken() {
    let cli = Cli::command();
    for command in [&cli].into_iter().chain(cli.get_subcommands()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(check(command.get_name(), &in_examples(&help)) > 0, "{}", command.get_name());
    }
}

#[test]
fn commands_are_found_where_they_are_printed() {
    let text = "\
```sh
NSQ=1 cargo run -p lookupd-perf -- compare --server a=\"b\" \\
    --server c='target/lookupd-perf floor --tcp {tcp}' && next
lookupd-perf populate --run a &
cargo build -p lookupd-perf
# lookupd-perf of a comment
```
With `lookupd-perf plot --from
x`, lookupd-perf and `lookupd-perf`.";
    let found: Vec<_> = in_markdown(text).into_iter().map(|arguments| arguments.join(" ")).collect();
    assert_eq!(
        found[..2],
        [
            "floor --tcp 127.0.0.1:4160",
            "compare --server a=b --server c=target/lookupd-perf floor --tcp 127.0.0.1:4160"
        ]
    );
    assert_eq!(found[2..], ["populate --run a", "plot --from x", "--help"]);
    assert_eq!(in_examples("Example:\n  lookupd-perf idle -c 1    of one")[0].join(" "), "idle -c 1");
}
