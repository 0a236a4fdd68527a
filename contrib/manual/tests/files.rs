//! Every flag is in the manual page and in the completions, and shells complete as the program reads its arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringlookupd::options::{Group, flags};
use tempfile::TempDir;

/// The files, as a package has them.
struct Files(TempDir);

impl Files {
    fn write() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let status = program().arg(folder.path()).env("SOURCE_DATE_EPOCH", "0").status();
        assert!(status.expect("it starts").success());
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("it was written")
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringlookupd-manual"))
}

/// Runs a program of the distribution; `None`, with a word about it, when it is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {}: {error}", command.get_program().display());
            None
        }
    }
}

/// The lines of a program that has nothing to complain about.
fn lines(output: &Output) -> Vec<&str> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{output:?}");
    str::from_utf8(&output.stdout).expect("UTF-8").lines().collect()
}

#[test]
fn every_flag_is_in_every_file() {
    let files = Files::write();
    let [manual, bash, zsh, fish] =
        ["ringlookupd.1", "ringlookupd.bash", "_ringlookupd", "ringlookupd.fish"].map(|name| files.read(name));
    let has_word = |text: &str, word: &str| text.split([' ', '\n', '\'', '[', '=', ')']).any(|part| part == word);
    for name in flags().map(|flag| flag.name).chain(["help"]) {
        assert!(manual.lines().any(|line| line.split(' ').take(3).eq([".It", "Fl", name])), "{name}");
        for text in [&bash, &zsh] {
            assert!(has_word(text, &format!("-{name}")), "{name}");
        }
        assert!(fish.contains(&format!(" -o {name} ")), "{name}");
    }
    let groups = flags().map(|flag| flag.group).collect::<Vec<_>>();
    for group in Group::ALL.into_iter().filter(|group| groups.contains(group)) {
        assert!(manual.contains(&format!(".Ss {group}\n")), "{group}");
    }
}

#[test]
fn the_manual_says_how_the_program_ends() {
    let files = Files::write();
    let manual = files.read("ringlookupd.1");
    for line in [".Dd January 1, 1970", ".It SIGHUP", ".It SIGINT, SIGTERM", ".It 0", ".It 1", ".It 2"] {
        assert!(manual.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_manual_is_well_formed() {
    let files = Files::write();
    let page = files.path("ringlookupd.1");
    if let Some(output) = run(Command::new("mandoc").args(["-Tlint", "-W", "warning"]).arg(&page)) {
        assert_eq!(lines(&output), [""; 0]);
    }
    let mut man = Command::new("man");
    if let Some(output) =
        run(man.args(["--warnings", "-l"]).arg(&page).env("MANPAGER", "cat").env("MANWIDTH", "80"))
    {
        let text = lines(&output);
        assert!(text.iter().any(|line| line.contains("-inactive-producer-timeout")), "{text:#?}");
    }
}

/// What bash makes of the last word, of a command line as it has split it.
fn bash(files: &Files, words: &[&str]) -> Option<Vec<String>> {
    let script =
        r#"source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ringlookupd; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", script]).arg(files.path("ringlookupd.bash")).args(words);
    let output = run(command.current_dir(files.0.path()))?;
    Some(lines(&output).into_iter().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[test]
fn bash_completes_flags_names_and_files() {
    let files = Files::write();
    for (words, expected) in [
        (&["-wo"][..], &["-workers"][..]),
        (&["--wo"], &["--workers"]),
        (&["-io=epoll", "-tcp-ad"], &["-tcp-address"]),
        (&["-io", ""], &["auto", "uring", "epoll"]),
        (&["--io", "u"], &["uring"]),
        (&["-io", "="], &["auto", "uring", "epoll"]),
        (&["-io", "=", "e"], &["epoll"]),
        (&["-log-format", "j"], &["json"]),
        (&["-log-level", "=", "w"], &["warn"]),
        (&["-config", "ringlookupd.b"], &["ringlookupd.bash"]),
        (&["-config", "=", "ringlookupd.b"], &["ringlookupd.bash"]),
        (&["-tcp-address", "-wo"], &[]),
        (&["-tcp-address", "="], &[]),
        (&["-pin-workers", "-wo"], &["-workers"]),
    ] {
        let Some(completed) = bash(&files, &[&["ringlookupd"], words].concat()) else { return };
        assert_eq!(completed, expected, "{words:?}");
    }
    let every: Vec<_> = flags().map(|flag| format!("-{}", flag.name)).chain(["-help".to_owned()]).collect();
    assert_eq!(bash(&files, &["ringlookupd", ""]).expect("bash"), every);
}

#[test]
fn fish_completes_flags_names_and_files() {
    let files = Files::write();
    for (line, expected) in [
        ("ringlookupd -worker", "-workers"),
        ("ringlookupd -io e", "epoll"),
        ("ringlookupd -io=e", "-io=epoll"),
        ("ringlookupd -log-format j", "json"),
        ("ringlookupd -config ringlookupd.b", "ringlookupd.bash"),
    ] {
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete -C $argv[2]"])
            .arg(files.path("ringlookupd.fish"));
        let Some(output) = run(fish.arg(line).env("HOME", files.0.path()).current_dir(files.0.path())) else {
            return;
        };
        let completed: Vec<_> = lines(&output).iter().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(completed, [expected], "{line}");
    }
}

/// Types into an interactive zsh, whose completion needs a terminal, and reads what the line has become.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty -b shell zsh -f
zpty -w shell "PS1=; fpath=(${1:h} \$fpath); autoload -Uz compinit; compinit -u -d ${1:h}/dump; compdef _ringlookupd ringlookupd"
zpty -w shell "show() { print -r -- \"line:<\$BUFFER>\"; BUFFER= }; zle -N show; bindkey '^X' show; cd ${1:h}"
zpty -w -n shell "$2"$'\t\x18'
while zpty -r shell answer '*line:<*>*'; do
  [[ $answer =~ 'line:<([^>]*)>' && $match[1] != '$BUFFER' ]] || continue
  print -r -- ${match[1]}
  break
done
zpty -d shell
"#;

#[test]
fn zsh_completes_flags_names_and_files() {
    let files = Files::write();
    for (line, expected) in [
        ("ringlookupd -worker", "ringlookupd -workers="),
        ("ringlookupd -io=e", "ringlookupd -io=epoll"),
        ("ringlookupd -io e", "ringlookupd -io epoll"),
        ("ringlookupd -log-format j", "ringlookupd -log-format json"),
        ("ringlookupd -config ringlookupd.b", "ringlookupd -config ringlookupd.bash"),
    ] {
        let mut zsh = Command::new("zsh");
        zsh.args(["-f", "-c", ZSH, "zsh"]).arg(files.path("_ringlookupd")).arg(line);
        let Some(output) = run(&mut zsh) else { return };
        let completed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(completed.trim_end(), expected, "{output:?}");
    }
}

#[test]
fn a_wrong_use_is_told_the_right_one() {
    for args in [&[][..], &["a", "b"]] {
        let output = program().args(args).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stderr, b"usage: ringlookupd-manual DIR\n");
    }
    let output = program().arg(Path::new("/dev/null/x")).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
}
