//! Completion for zsh.

use std::fmt::Write;

use ringlookupd::options::FlagHelp;

pub fn completion(flags: &[FlagHelp]) -> String {
    let mut text = "#compdef ringlookupd\n# Completion of ringlookupd's flags for zsh.\n\n_arguments".to_owned();
    for flag in flags {
        let FlagHelp { name, argument, .. } = flag;
        let meaning = escape(flag.meaning);
        let value = match &flag.values[..] {
            _ if flag.is_path() => format!(":{argument}:_files"),
            // A space is an action that completes nothing.
            [] => format!(":{argument}: "),
            values => format!(":{argument}:({})", values.join(" ")),
        };
        let (equals, value) = if argument.is_empty() { ("", "") } else { ("=", value.as_str()) };
        write!(text, " \\\n  '-{name}{equals}[{meaning}]{value}'").expect("a String takes all");
    }
    text.push('\n');
    text
}

/// For an explanation in brackets within single quotes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace('\'', "'\\''")
}
