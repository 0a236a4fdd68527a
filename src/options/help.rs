//! What each flag is for, in groups: the text of `-help`, and the same for the manual page and completions.

use std::fmt::{self, Write};

use super::Options;
use super::table::all;

/// What the help calls the value of a flag that names a file.
pub(super) const FILE: &str = "file";
/// The same for the path of a folder.
pub(super) const FOLDER: &str = "folder";

/// Flags that belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    General,
    Listening,
    Producers,
    State,
    Watching,
    Access,
    Page,
    Tls,
    Cluster,
    Workers,
    Limits,
    Timeouts,
    StartAndStop,
    Logging,
}

impl Group {
    /// Every group, in the order of the help.
    pub const ALL: [Self; 14] = [
        Self::General,
        Self::Listening,
        Self::Producers,
        Self::State,
        Self::Watching,
        Self::Access,
        Self::Page,
        Self::Tls,
        Self::Cluster,
        Self::Workers,
        Self::Limits,
        Self::Timeouts,
        Self::StartAndStop,
        Self::Logging,
    ];
}

/// The group's heading.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::General => "General",
            Self::Listening => "Listening",
            Self::Producers => "Producers and names",
            Self::State => "State",
            Self::Watching => "Watching",
            Self::Access => "Access",
            Self::Page => "Page",
            Self::Tls => "TLS",
            Self::Cluster => "Cluster",
            Self::Workers => "Workers",
            Self::Limits => "Limits",
            Self::Timeouts => "Timeouts",
            Self::StartAndStop => "Start and stop",
            Self::Logging => "Logging",
        })
    }
}

/// A flag as an operator reads of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlagHelp {
    /// Without its dash.
    pub name: &'static str,
    pub group: Group,
    /// What the value is called, such as `duration`; empty for a boolean, whose flag stands alone.
    pub argument: &'static str,
    /// All values, where they are names.
    pub values: Vec<&'static str>,
    pub meaning: &'static str,
    /// The default on this machine.
    pub default: Option<String>,
    /// The default in words, where it depends on the machine or on another flag; otherwise empty.
    pub default_in_words: &'static str,
}

impl FlagHelp {
    /// Whether the value is the path of a file or a folder.
    #[must_use]
    pub fn is_path(&self) -> bool {
        [FILE, FOLDER].contains(&self.argument)
    }
}

/// Every flag but `-help`, in the order of the help.
pub fn flags() -> impl Iterator<Item = FlagHelp> {
    let defaults = Options::default();
    let of_group = |group| all().filter(move |flag| flag.group == group);
    Group::ALL.into_iter().flat_map(of_group).map(move |flag| FlagHelp {
        name: flag.name,
        group: flag.group,
        argument: flag.argument,
        values: (flag.values)(),
        meaning: flag.meaning,
        default: (flag.default)(&defaults),
        default_in_words: flag.default_in_words,
    })
}

/// The text of `-help`: each flag with its type, meaning and default, in the layout of Go's package flag.
pub(super) fn usage() -> String {
    let mut text = "Usage of nsqlookupd:\n".to_owned();
    let mut heading = None;
    for FlagHelp { name, group, argument, meaning, default, default_in_words: words, .. } in flags() {
        if heading.replace(group) != Some(group) {
            write!(text, "\n{group}:\n").expect("a String takes all");
        }
        let space = if argument.is_empty() { "" } else { " " };
        let default = match default {
            Some(default) if words.is_empty() => format!(" (default {default})"),
            Some(default) => format!(" (default {default}: {words})"),
            None if words.is_empty() => String::new(),
            None => format!(" (default {words})"),
        };
        writeln!(text, "  -{name}{space}{argument}\n    \t{meaning}{default}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limit;

    #[test]
    fn every_flag_is_in_the_usage_once_with_its_default() {
        let usage = usage();
        for flag in all() {
            let heads =
                usage.lines().filter(|line| line.split_whitespace().next() == Some(&format!("-{}", flag.name)));
            assert_eq!(heads.count(), 1, "{}", flag.name);
            assert_eq!(flag.key, flag.name.replace('-', "_"));
        }
        for limit in Limit::ALL {
            assert!(flags().any(|flag| flag.name == limit.name()), "{limit:?}");
        }
        for default in [
            "-max-command-size bytes\n",
            "(default 65536)",
            "(default 1m0s)",
            r#"(default "0.0.0.0:4160")"#,
            r#"(default "0.0.0.0:4161")"#,
            r#"(default "[nsqlookupd] ")"#,
            "(default 5m0s)",
            "(default 45s)",
            "(default info)",
            "(default auto)",
            ": the hostname)\n",
            "(default that of -inactive-producer-timeout)\n",
            "\n\nStart and stop:\n  -warm-up duration\n",
        ] {
            assert!(usage.contains(default), "{default}");
        }
    }
}
