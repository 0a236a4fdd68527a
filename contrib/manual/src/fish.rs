//! Completion for fish.

use std::fmt::Write;

use ringlookupd::options::FlagHelp;

pub fn completion(flags: &[FlagHelp]) -> String {
    let mut text = "# Completion of ringlookupd's flags for fish.\n\ncomplete -c ringlookupd -f\n".to_owned();
    for flag in flags {
        let meaning = flag.meaning.replace('\\', "\\\\").replace('\'', "\\'");
        let value = match &flag.values[..] {
            _ if flag.is_path() => " -r -F".to_owned(),
            [] if flag.argument.is_empty() => String::new(),
            [] => " -x".to_owned(),
            values => format!(" -x -a '{}'", values.join(" ")),
        };
        writeln!(text, "complete -c ringlookupd -o {}{value} -d '{meaning}'", flag.name)
            .expect("a String takes all");
    }
    text
}
