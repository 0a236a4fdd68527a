use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::*;

/// A sink that shows what was written, can be shut (writes wait), and can fail.
#[derive(Clone, Default)]
struct Sink(Arc<(Mutex<SinkState>, Condvar)>);

#[derive(Default)]
struct SinkState {
    writes: Vec<String>,
    shut: bool,
    failing: bool,
    attempts: usize,
}

impl Sink {
    fn state(&self) -> MutexGuard<'_, SinkState> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut SinkState)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    fn await_attempts(&self, attempts: usize) {
        let _state = self.0.1.wait_while(self.state(), |state| state.attempts < attempts).unwrap();
    }

    fn text(&self) -> String {
        self.state().writes.concat()
    }

    /// The lines without what comes before the level.
    fn messages(&self) -> Vec<String> {
        let start = "> 2026/11/22 10:37:00.123456 ".len();
        self.text().lines().map(|line| line[start..].to_owned()).collect()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.attempts += 1;
        self.0.1.notify_all();
        state = self.0.1.wait_while(state, |state| state.shut).unwrap();
        if state.failing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.writes.push(str::from_utf8(bytes).unwrap().to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(sink: &Sink, level: Level) -> (Log, LogWriter) {
    Log::start_with(sink.clone(), options(level, Format::Text)).unwrap()
}

fn options(level: Level, format: Format) -> LogOptions {
    LogOptions { level, prefix: "> ".to_owned(), format }
}

/// What must not be printed.
struct Unprintable;

impl fmt::Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("formatted");
    }
}

#[test]
fn a_line_is_in_stock_format() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Info);
    log.warn(format_args!("topic {}", "orders"));
    writer.close();
    let shape: String = sink.text().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "> 0000/00/00 00:00:00.000000 WARNING: topic orders\n");
}

#[test]
fn a_message_below_the_level_is_not_even_formatted() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Warn);
    log.debug(format_args!("{Unprintable}"));
    log.info(format_args!("{Unprintable}"));
    log.warn(format_args!("w"));
    log.error(format_args!("e"));
    log.fatal(format_args!("f"));
    assert!(!log.enabled(Level::Info) && log.enabled(Level::Warn));
    writer.close();
    assert_eq!(sink.messages(), ["WARNING: w", "ERROR: e", "FATAL: f"]);

    let disabled = Log::disabled();
    disabled.fatal(format_args!("{Unprintable}"));
    assert!(!disabled.enabled(Level::Fatal));
    assert_eq!((disabled.dropped(), disabled.write_errors()), (0, 0));
}

#[test]
fn a_client_cannot_forge_a_line_or_drive_a_terminal() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Info);
    log.info(format_args!("a\r\n> 2026/01/01\tFATAL: \x1b[31m\0\x7f\u{85}\u{9b}2J \u{e9}\u{4e16} \\n"));
    writer.close();
    assert_eq!(
        sink.messages(),
        [r"INFO: a\r\n> 2026/01/01\tFATAL: \u{1b}[31m\0\u{7f}\u{85}\u{9b}2J ".to_owned() + "\u{e9}\u{4e16} \\n"]
    );
}

/// Characters that reorder, hide, join or break what surrounds them.
#[rustfmt::skip]
const INVISIBLE: [char; 30] = [
    '\u{ad}', '\u{61c}', '\u{180e}', '\u{200b}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}',
    '\u{202c}', '\u{202d}', '\u{202e}', '\u{2060}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
    '\u{fff9}', '\u{e0001}', '\u{e007f}', '\u{2028}', '\u{2029}', '\u{a0}', '\u{3000}', '\u{301}', '\u{fe0f}',
    '\u{e000}', '\u{10ffff}', '\u{378}',
];

#[test]
fn invisible_characters_are_escaped() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Info);
    for character in INVISIBLE {
        log.info(format_args!("{character}"));
    }
    log.info(format_args!("'\"\\ ~\u{e9}\u{4e16}\u{1f600}\u{fffd}"));
    writer.close();
    let mut expected: Vec<_> = INVISIBLE.map(|character| format!("INFO: {}", character.escape_unicode())).into();
    expected.push("INFO: '\"\\ ~\u{e9}\u{4e16}\u{1f600}\u{fffd}".to_owned());
    assert_eq!(sink.messages(), expected);
}

#[test]
fn a_long_message_is_cut_between_characters() {
    assert_eq!(format_bounded(format_args!("{:>1$}", "", LOG_MESSAGE_BYTES)).len(), LOG_MESSAGE_BYTES);
    // The two bytes of the letter would be the last one that fits and the first that does not.
    let head = "x".repeat(LOG_MESSAGE_BYTES - 1);
    assert_eq!(format_bounded(format_args!("{head}\u{e9}{}", "tail")), format!("{head}..."));
}

#[test]
fn an_unread_sink_costs_lines_and_never_holds_up_a_caller() {
    let sink = Sink::default();
    sink.change(|state| state.shut = true);
    let (log, writer) = start(&sink, Level::Info);
    log.info(format_args!("first"));
    sink.await_attempts(1);
    for number in 0..LOG_QUEUE_LINES + 5 {
        log.info(format_args!("{number}"));
    }
    assert_eq!(log.dropped(), 5);
    sink.change(|state| state.shut = false);
    writer.close();

    let messages = sink.messages();
    assert_eq!(messages.len(), 1 + LOG_QUEUE_LINES + 1);
    assert_eq!(messages[LOG_QUEUE_LINES], format!("INFO: {}", LOG_QUEUE_LINES - 1));
    assert_eq!(
        messages[LOG_QUEUE_LINES + 1],
        "WARNING: 5 log lines were dropped: standard error is not read fast enough"
    );
}

#[test]
fn queued_lines_leave_in_one_write() {
    let sink = Sink::default();
    sink.change(|state| state.shut = true);
    let (log, writer) = start(&sink, Level::Info);
    log.info(format_args!("first"));
    sink.await_attempts(1);
    for number in 0..100 {
        log.info(format_args!("{number}"));
    }
    sink.change(|state| state.shut = false);
    writer.close();
    assert_eq!(sink.messages().len(), 101);
    assert_eq!(sink.state().writes.len(), 2);
}

#[test]
fn a_failed_write_is_counted_and_tears_no_line() {
    let sink = Sink::default();
    sink.change(|state| state.failing = true);
    let (log, writer) = start(&sink, Level::Info);
    log.info(format_args!("kept"));
    sink.await_attempts(1);
    sink.change(|state| state.failing = false);
    log.info(format_args!("later"));
    drop(writer);
    assert_eq!(log.write_errors(), 1);
    assert_eq!(sink.messages(), ["INFO: kept", "INFO: later"]);
}

#[test]
fn closing_does_not_wait_for_ever_on_a_stuck_sink() {
    let sink = Sink::default();
    sink.change(|state| state.shut = true);
    let (log, mut writer) = start(&sink, Level::Info);
    log.info(format_args!("stuck"));
    sink.await_attempts(1);
    writer.close_within(Duration::ZERO);
    sink.change(|state| state.shut = false);
}

#[test]
fn lines_after_the_close_are_counted() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Info);
    log.clone().info(format_args!("before"));
    writer.close();
    log.info(format_args!("after"));
    assert_eq!(log.dropped(), 1);
    assert_eq!(sink.messages(), ["INFO: before"]);
}

#[test]
fn json_is_an_object_a_line_with_the_fields_that_are_known() {
    let sink = Sink::default();
    let (log, writer) = Log::start_with(sink.clone(), options(Level::Debug, Format::Json)).unwrap();
    log.debug(format_args!("none"));
    log.client(&"10.0.0.7:51544").warn(format_args!("client"));
    log.topic(&"orders").channel(None::<&Unprintable>).error(format_args!("topic"));
    log.client(&1).topic(&2).channel(Some(&3)).info(format_args!("all"));
    writer.close();
    let written = sink.text();
    let expected = [
        r#""level":"debug","message":"none"}"#,
        r#""level":"warn","message":"client","client":"10.0.0.7:51544"}"#,
        r#""level":"error","message":"topic","topic":"orders"}"#,
        r#""level":"info","message":"all","client":"1","topic":"2","channel":"3"}"#,
    ];
    assert_eq!(written.lines().count(), expected.len());
    for (line, end) in written.lines().zip(expected) {
        let at = line.strip_prefix(r#"{"time":""#).and_then(|line| line.strip_suffix(end)).expect(line);
        let at = at.strip_suffix("\",").expect(line);
        chrono::DateTime::parse_from_rfc3339(at).expect(line);
        assert_eq!(at.len(), "2026-11-22T10:37:00.123456+01:00".len(), "{at}");
    }
}

/// Decoded, the line is what was logged. As it stands it neither drives a terminal nor reorders what it displays.
#[test]
fn json_escapes_what_is_not_seen() {
    let sink = Sink::default();
    let (log, writer) = Log::start_with(sink.clone(), options(Level::Info, Format::Json)).unwrap();
    let logged: String = INVISIBLE.into_iter().chain("\r\n\t\0\x1b\x7f\"'\\/ ~\u{e9}\u{1f600}".chars()).collect();
    log.topic(&logged).info(format_args!("{logged}"));
    writer.close();
    let line = sink.text();
    let visible = |character: char| character.is_ascii_graphic() || " \u{e9}\u{1f600}".contains(character);
    assert!(line.strip_suffix('\n').expect("a line").chars().all(visible), "{line:?}");
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&value["message"], &value["topic"]), (&logged.as_str().into(), &logged.as_str().into()));
}

#[test]
fn text_has_no_fields_and_does_not_format_them() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Info);
    log.client(&Unprintable).topic(&Unprintable).channel(Some(&Unprintable)).info(format_args!("text"));
    writer.close();
    assert_eq!(sink.messages(), ["INFO: text"]);
}

#[test]
fn dropped_lines_are_reported_as_json_too() {
    let sink = Sink::default();
    sink.change(|state| state.shut = true);
    let (log, writer) = Log::start_with(sink.clone(), options(Level::Info, Format::Json)).unwrap();
    log.info(format_args!("first"));
    sink.await_attempts(1);
    (0..=LOG_QUEUE_LINES).for_each(|number| log.info(format_args!("{number}")));
    sink.change(|state| state.shut = false);
    writer.close();
    let written = sink.text();
    let last = written.lines().last().expect("lines");
    let end = r#""level":"warn","message":"1 log lines were dropped: standard error is not read fast enough"}"#;
    assert!(last.ends_with(end), "{last}");
}

#[test]
fn a_log_in_use_takes_other_options() {
    let sink = Sink::default();
    let (log, writer) = start(&sink, Level::Info);
    let clone = log.clone();
    log.set_level(Level::Error);
    assert_eq!((clone.level(), clone.enabled(Level::Warn)), (Level::Error, false));
    clone.warn(format_args!("{Unprintable}"));
    clone.error(format_args!("before"));
    sink.await_attempts(1);

    let before = sink.text().len();
    log.configure(LogOptions { level: Level::Debug, prefix: "new ".to_owned(), format: Format::Text });
    clone.debug(format_args!("text"));
    sink.await_attempts(2);
    assert!(
        sink.text()[before..].starts_with("new ") && sink.text().ends_with(" DEBUG: text\n"),
        "{}",
        sink.text()
    );

    log.configure(options(Level::Error, Format::Json));
    clone.topic(&"t").error(format_args!("json"));
    writer.close();
    assert!(sink.text().ends_with("\"message\":\"json\",\"topic\":\"t\"}\n"), "{}", sink.text());

    let disabled = Log::disabled();
    disabled.configure(options(Level::Debug, Format::Json));
    assert!(!disabled.enabled(Level::Fatal));
}
