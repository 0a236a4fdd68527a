//! The manual page, in mdoc.

use std::env;
use std::fmt::Write;

use chrono::{DateTime, Utc};
use ringlookupd::options::{FlagHelp, Group};

use crate::reference::{Block, section};

/// Columns of a line of text in the source.
const COLUMNS: usize = 78;

pub fn page(flags: &[FlagHelp]) -> String {
    format!(
        r".Dd {date}
.Dt RINGLOOKUPD 1
.Os
.Sh NAME
.Nm ringlookupd
.Nd tell NSQ consumers which nsqd nodes have a topic
.Sh SYNOPSIS
.Nm
.Op Fl flag Ns Op = Ns Ar value
.Ar ...
.Sh DESCRIPTION
.Nm
is a drop-in replacement for nsqlookupd, the discovery daemon of NSQ.
Each nsqd keeps a connection to it, over which it registers its topics and
channels.
Consumers and nsqadmin ask it over HTTP which nsqd nodes have a topic.
.Pp
A flag is written with one dash or two, and its value behind
.Ql =
or a space; a boolean takes its value behind
.Ql =
only.
The command line overrides the file that
.Fl config
names, and the file overrides the defaults.
Settings are checked before the server listens.
Durations are written as
.Ql 300s ,
.Ql 1m30s
or
.Ql 1.5h .
.Pp
Log lines go to standard error.
.Ql GET /metrics
on the HTTP port has the figures for Prometheus.
.Sh OPTIONS
{options}.Sh SIGNALS
{signals}.Sh FILES
.Bl -tag -width Ds
.It Pa /etc/ringlookupd/ringlookupd.toml
The file that the packages' service names by
.Fl config .
It is TOML.
Its keys are the flags with underscores in place of dashes, such as
.Ql tcp_address .
An unknown key is an error.
.El
.Sh EXIT STATUS
{exit}.Sh EXAMPLES
Serve nsqd and HTTP clients of this machine alone:
.Pp
.Dl ringlookupd -tcp-address=127.0.0.1:4160 -http-address=127.0.0.1:4161
.Sh SEE ALSO
.Xr systemd.service 5
.Pp
NSQ:
.Lk https://nsq.io
",
        date = date(),
        options = options(flags),
        signals = blocks(&section("## Signals")),
        exit = blocks(&section("## Exit codes")),
    )
}

/// The day of the build, or of `SOURCE_DATE_EPOCH` for a build that can be repeated.
fn date() -> String {
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let date = given.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or_else(Utc::now);
    date.format("%B %-d, %Y").to_string()
}

/// The flags by group.
fn options(flags: &[FlagHelp]) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let mut of_group = flags.iter().filter(|flag| flag.group == group).peekable();
        if of_group.peek().is_none() {
            continue;
        }
        write!(text, ".Ss {group}\n.Bl -tag -width Ds\n").expect("a String takes all");
        for flag in of_group {
            let argument = if flag.argument.is_empty() { String::new() } else { format!(" Ar {}", flag.argument) };
            writeln!(text, ".It Fl {}{argument}", flag.name).expect("a String takes all");
            sentence(&mut text, &capitalized(flag.meaning));
            let default = match &flag.default {
                Some(default) if flag.default_in_words.is_empty() => default,
                _ => flag.default_in_words,
            };
            if !default.is_empty() {
                sentence(&mut text, &format!("The default is {default}"));
            }
        }
        text.push_str(".El\n");
    }
    text
}

/// Rows as a list of terms, and paragraphs.
fn blocks(blocks: &[Block]) -> String {
    let mut text = String::new();
    let mut in_list = false;
    for (nth, block) in blocks.iter().enumerate() {
        let is_row = matches!(block, Block::Row(..));
        if is_row != in_list {
            text.push_str(if is_row { ".Bl -tag -width Ds\n" } else { ".El\n" });
            in_list = is_row;
        }
        if !is_row && nth > 0 {
            text.push_str(".Pp\n");
        }
        match block {
            Block::Row(term, meaning) => {
                writeln!(text, ".It {term}").expect("a String takes all");
                sentence(&mut text, &capitalized(meaning));
            }
            Block::Paragraph(paragraph) => {
                paragraph.split_inclusive(". ").for_each(|part| sentence(&mut text, part.trim_end()));
            }
        }
    }
    if in_list {
        text.push_str(".El\n");
    }
    text
}

fn capitalized(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// Appends a sentence, on lines of its own as mdoc wants it.
fn sentence(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.trim_end_matches('.').split_whitespace() {
        // A dash that is part of a name stays one when the text is typeset; a line may not begin as a macro does.
        let word = word.replace('\\', "\\e").replace('-', "\\-");
        if column > 0 && column + 1 + word.len() > COLUMNS {
            out.push('\n');
            column = 0;
        }
        out.push_str(match column {
            0 if word.starts_with(['.', '\'']) => "\\&",
            0 => "",
            _ => " ",
        });
        out.push_str(&word);
        column += 1 + word.len();
    }
    out.push_str(".\n");
}
