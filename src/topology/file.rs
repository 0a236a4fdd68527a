//! The topology file: a table of topics, each with the list of its channels.
//!
//! ```toml
//! [topics]
//! orders = ["billing", "mail"]
//! clicks = []
//! ```

use std::borrow::Cow;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Topic, Topology};
use crate::limits::{TOPOLOGY_CHANNELS_OF_TOPIC_MAX, TOPOLOGY_FILE_BYTES_MAX, TOPOLOGY_NAMES_MAX};
use crate::registry::Name;
use crate::toml_error::{self, excerpt, line_at};
use crate::whole_file::{ReadError, WholeFile};

/// The only key.
const TOPICS: &str = "topics";

/// Why a file cannot be used: one line for the operator.
#[derive(Debug)]
pub struct TopologyError(String);

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mistake, and the byte of the file at which it is.
type Mistake = (usize, String);

/// Reads the file at `path`. An empty path is no file, which names nothing.
///
/// # Errors
/// The file cannot be read, or is not what it should be.
pub fn load(path: &str) -> Result<Topology, TopologyError> {
    if path.is_empty() {
        return Ok(Topology::default());
    }
    let bytes = WholeFile::open(path).and_then(|file| file.read(TOPOLOGY_FILE_BYTES_MAX));
    let bytes = bytes.map_err(|error| {
        let it = if matches!(error, ReadError::Io(_)) { "" } else { "it " };
        TopologyError(format!("cannot read -topology-file {path:?}: {it}{error}"))
    })?;
    parse(&bytes).map_err(|reason| TopologyError(format!("in -topology-file {path:?}: {reason}")))
}

/// Reads the text of a file.
pub(super) fn parse(bytes: &[u8]) -> Result<Topology, String> {
    let text = toml_error::text(bytes)?;
    let table = DeTable::parse(text).map_err(|error| toml_error::syntax_error(text, error))?;
    topology(table.get_ref()).map_err(|(at, reason)| format!("line {}: {reason}", line_at(text, at)))
}

fn topology(table: &DeTable<'_>) -> Result<Topology, Mistake> {
    if let Some((key, _)) = table.iter().find(|(key, _)| key.get_ref() != TOPICS) {
        let reason = format!(
            "unknown key {}: use [topics], and below it a line such as orders = [\"billing\", \"mail\"] for each topic",
            excerpt(key.get_ref())
        );
        return Err((key.span().start, reason));
    }
    let Some((key, value)) = table.iter().next() else { return Ok(Topology::default()) };
    let DeValue::Table(table) = value.get_ref() else {
        let reason =
            format!("invalid value of type {} for topics: use a table, [topics]", value.get_ref().type_str());
        return Err((key.span().start, reason));
    };
    let (mut topics, mut names) = (Vec::new(), 0);
    for (key, value) in table {
        let topic = topic(key, value)?;
        names += 1 + topic.channels.len();
        if names > TOPOLOGY_NAMES_MAX {
            let reason = format!("more than {TOPOLOGY_NAMES_MAX} topics and channels in all");
            return Err((key.span().start, reason));
        }
        topics.push(topic);
    }
    topics.sort_unstable_by(|some, other| some.name.as_bytes().cmp(other.name.as_bytes()));
    Ok(Topology { topics })
}

fn topic(key: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> Result<Topic, Mistake> {
    let at = key.span().start;
    let name = name(key.get_ref(), format_args!("topic")).map_err(|reason| (at, reason))?;
    let DeValue::Array(items) = value.get_ref() else {
        let reason = format!(
            "invalid value of type {} for topic {name}: use a list of channels such as [\"billing\", \"mail\"], or [] for \
             none; a name with a dot has quotes, \"orders.eu\" = []",
            value.get_ref().type_str()
        );
        return Err((at, reason));
    };
    if items.len() > TOPOLOGY_CHANNELS_OF_TOPIC_MAX {
        return Err((at, format!("topic {name} has more than {TOPOLOGY_CHANNELS_OF_TOPIC_MAX} channels")));
    }
    let mut channels = items.iter().map(|item| channel(name, item)).collect::<Result<Vec<_>, _>>()?;
    channels
        .sort_unstable_by(|(some, at), (other, later)| some.as_bytes().cmp(other.as_bytes()).then(at.cmp(later)));
    if let Some(both) = channels.windows(2).find(|both| both[0].0 == both[1].0) {
        let (again, at) = both[1];
        return Err((at, format!("channel {again} of topic {name} is there twice")));
    }
    Ok(Topic { name, channels: channels.into_iter().map(|(channel, _)| channel).collect() })
}

/// A channel, and where it is.
fn channel(topic: Name, item: &Spanned<DeValue<'_>>) -> Result<(Name, usize), Mistake> {
    let at = item.span().start;
    let DeValue::String(text) = item.get_ref() else {
        let reason = format!(
            "invalid channel of type {} of topic {topic}: use a string, such as \"billing\"",
            item.get_ref().type_str()
        );
        return Err((at, reason));
    };
    let name = name(text, format_args!("channel of topic {topic}")).map_err(|reason| (at, reason))?;
    Ok((name, at))
}

fn name(text: &str, what: fmt::Arguments<'_>) -> Result<Name, String> {
    let name = Name::new(text.as_bytes()).ok_or_else(|| {
        format!(
            "invalid name {} of a {what}: use 1 to 64 letters, digits, dots, dashes and underscores",
            excerpt(text)
        )
    })?;
    if name.is_ephemeral() {
        return Err(format!(
            "invalid name {text:?} of a {what}: what is #ephemeral goes with its last producer or consumer, and the names \
             here always exist; use a name without #ephemeral"
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topics with their channels.
    fn read_names(text: &str) -> Vec<(String, Vec<String>)> {
        let Topology { topics } = parse(text.as_bytes()).expect("well-formed");
        let texts = |names: &[Name]| names.iter().map(ToString::to_string).collect();
        topics.iter().map(|topic| (topic.name.to_string(), texts(&topic.channels))).collect()
    }

    fn names(names: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        names.iter().map(|&(topic, channels)| (topic.to_owned(), texts(channels))).collect()
    }

    #[test]
    fn topics_are_read_with_their_channels_in_order() {
        for (text, expected) in [
            ("", &[][..]),
            ("# Nothing yet.\n", &[]),
            ("[topics]\n", &[]),
            ("topics = {}\n", &[]),
            (
                "\u{feff}[topics]\norders = ['mail', \"billing\"] # ours\r\nclicks = []\n",
                &[("clicks", &[][..]), ("orders", &["billing", "mail"])],
            ),
            ("topics.b = [\n  'z',\n  'a',\n]\ntopics.a = []\n", &[("a", &[]), ("b", &["a", "z"])]),
            ("[topics]\n\"orders.eu\" = ['x.y']\n1 = ['-_']\n", &[("1", &["-_"]), ("orders.eu", &["x.y"])]),
        ] {
            assert_eq!(read_names(text), names(expected), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_reported_with_its_line_and_what_is_allowed() {
        let use_list = "use a list of channels such as [\"billing\", \"mail\"], or [] for none; a name with a dot has \
                        quotes, \"orders.eu\" = []";
        let use_name = "use 1 to 64 letters, digits, dots, dashes and underscores";
        let ephemeral = "what is #ephemeral goes with its last producer or consumer, and the names here always exist; \
                         use a name without #ephemeral";
        let long = "t".repeat(65);
        for (text, expected) in [
            (
                "[topics]\n\n[topic]\na = []\n",
                "line 3: unknown key \"topic\": use [topics], and below it a line such as orders = [\"billing\", \
                 \"mail\"] for each topic"
                    .to_owned(),
            ),
            (
                "\ntopics = ['a']\n",
                "line 2: invalid value of type array for topics: use a table, [topics]".to_owned(),
            ),
            ("[[topics]]\n", "line 1: invalid value of type array for topics: use a table, [topics]".to_owned()),
            ("[topics]\na = 'b'\n", format!("line 2: invalid value of type string for topic a: {use_list}")),
            ("[topics]\na = true\n", format!("line 2: invalid value of type boolean for topic a: {use_list}")),
            (
                "[topics]\norders.eu = []\n",
                format!("line 2: invalid value of type table for topic orders: {use_list}"),
            ),
            ("[topics]\n[topics.a]\n", format!("line 2: invalid value of type table for topic a: {use_list}")),
            (
                "[topics]\na = [\n'b',\n3]\n",
                "line 4: invalid channel of type integer of topic a: use a string, such as \"billing\"".to_owned(),
            ),
            (
                "[topics]\na = [[]]\n",
                "line 2: invalid channel of type array of topic a: use a string, such as \"billing\"".to_owned(),
            ),
            ("[topics]\na = ['x',\n'b', 'c',\n'b']\n", "line 4: channel b of topic a is there twice".to_owned()),
            ("[topics]\n'a b' = []\n", format!("line 2: invalid name \"a b\" of a topic: {use_name}")),
            ("[topics]\n'' = []\n", format!("line 2: invalid name \"\" of a topic: {use_name}")),
            (&format!("[topics]\n{long} = []"), format!("line 2: invalid name \"{long}\" of a topic: {use_name}")),
            (
                "[topics]\na = [\n'b\u{e9}']\n",
                format!("line 3: invalid name \"b\u{e9}\" of a channel of topic a: {use_name}"),
            ),
            (
                "[topics]\n'a#ephemeral' = []\n",
                format!("line 2: invalid name \"a#ephemeral\" of a topic: {ephemeral}"),
            ),
            (
                "[topics]\na = ['b#ephemeral']\n",
                format!("line 2: invalid name \"b#ephemeral\" of a channel of topic a: {ephemeral}"),
            ),
            ("[topics]\na = []\na = []\n", "line 3, key \"a\": duplicate key, in \"a = []\"".to_owned()),
        ] {
            assert_eq!(parse(text.as_bytes()).expect_err(text), expected, "{text:?}");
        }
        let is_reported = |bytes: &[u8], start| {
            let reason = parse(bytes).expect_err(start);
            assert!(reason.starts_with(start) && !reason.contains(char::is_control), "{reason}");
        };
        is_reported(b"[topics]\na = [b]\n", "line 2, key \"");
        is_reported(b"[topics]\na = ['b'\n", "line 2, key \"");
        is_reported(b"[topics]\na = ['\xff']\n", "line 2, key \"a\": not UTF-8, in ");
    }

    /// However long a name or a line is.
    #[test]
    fn an_error_is_short() {
        let long = "x".repeat(1 << 14);
        for text in [format!("{long} = 1"), format!("[topics]\n{long} = []"), format!("[topics]\na = ['{long}']")]
        {
            let error = parse(text.as_bytes()).expect_err("too long");
            assert!(error.len() < 1024, "{} bytes", error.len());
        }
    }

    #[test]
    fn there_are_so_many_names_and_no_more() {
        let list = |count: usize| (0..count).map(|nth| format!("'{nth}',")).collect::<Vec<_>>().concat();
        let text = |channels| format!("[topics]\na = [{}]\n", list(channels));
        assert_eq!(read_names(&text(TOPOLOGY_CHANNELS_OF_TOPIC_MAX))[0].1.len(), TOPOLOGY_CHANNELS_OF_TOPIC_MAX);
        let error = parse(text(TOPOLOGY_CHANNELS_OF_TOPIC_MAX + 1).as_bytes()).expect_err("one too many");
        assert_eq!(error, "line 2: topic a has more than 256 channels");
        let topics = |count: usize| (0..count).map(|nth| format!("t{nth} = []\n")).collect::<Vec<_>>().concat();
        let text = |count| format!("[topics]\n{}", topics(count));
        assert_eq!(read_names(&text(TOPOLOGY_NAMES_MAX)).len(), TOPOLOGY_NAMES_MAX);
        let error = parse(text(TOPOLOGY_NAMES_MAX + 1).as_bytes()).expect_err("one too many");
        assert!(error.ends_with(": more than 100000 topics and channels in all"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error =
            |path: &std::path::Path| load(&path.display().to_string()).expect_err("no topology").to_string();
        let shown = folder.path().display().to_string();
        assert_eq!(error(folder.path()), format!("cannot read -topology-file {shown:?}: it is no file"));
        assert!(error(&folder.path().join("none")).ends_with("No such file or directory (os error 2)"));
        let file = folder.path().join("large.toml");
        std::fs::write(&file, "#".repeat(TOPOLOGY_FILE_BYTES_MAX)).expect("space for a file");
        assert_eq!(load(&file.display().to_string()).expect("a comment"), Topology::default());
        std::fs::write(&file, "#".repeat(TOPOLOGY_FILE_BYTES_MAX + 1)).expect("space for a file");
        assert!(error(&file).ends_with("it has more than 8388608 bytes"));
        std::fs::write(&file, "[topics]\na = 1\n").expect("space for a file");
        let reason = "line 2: invalid value of type integer for topic a: use a list";
        assert!(
            error(&file).starts_with(&format!("in -topology-file {:?}: {reason}", file.display().to_string()))
        );
        assert_eq!(load("").expect("no file"), Topology::default());
    }
}
