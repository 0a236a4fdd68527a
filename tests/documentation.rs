//! `docs/reference.md` describes what an operator can set, see and meet. These tests hold it against the program: what
//! the program has is on the page, and what is on the page the program has. The program is asked wherever it can tell
//! (`-help`, `/metrics`, OPTIONS, /proc); only routes and log lines are read from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use ringlookupd::endpoint::Endpoint;
use ringlookupd::limits::Limit;
use rustix::process::Signal;

mod support;

use support::clients::{connect, exchange, get, post, request};
use support::contrib::{self, dashboard_queries};
use support::{PATIENCE, Server};

const NO_FLAGS: &[&str] = &[];

/// A file of this package.
fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of each row of the table below a heading of `docs/reference.md`.
fn rows(heading: &str) -> Vec<Vec<String>> {
    rows_of("docs/reference.md", heading)
}

fn rows_of(page: &str, heading: &str) -> Vec<Vec<String>> {
    let page = read(page);
    let section = page.lines().skip_while(|line| *line != heading).skip(1);
    let section = section.take_while(|line| !line.starts_with('#'));
    // A table's first two rows are its head and a rule.
    let rows = section.filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<_>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table below {heading:?}");
    rows
}

/// What stands in backticks, each span without them.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn set<'a>(items: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    items.into_iter().map(str::to_owned).collect()
}

fn run(args: &[&str]) -> (ExitStatus, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringlookupd")).args(args).output().expect("it starts");
    (output.status, String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8"))
}

/// The flags of `-help`, each with its default as the page has it: without quotes, or in words where it depends on the
/// machine or on another flag.
fn flags() -> BTreeMap<String, Option<String>> {
    let (_, help) = run(&["-help"]);
    let entries = help.split("\n  -").skip(1).map(|entry| {
        let [head, meaning] = entry.lines().take(2).collect::<Vec<_>>()[..] else { panic!("{entry}") };
        let name = head.split_whitespace().next().expect("a name");
        let default = meaning.strip_suffix(')').and_then(|meaning| meaning.rsplit_once(" (default "));
        (name, default.map(|(_, default)| default.trim_matches('"')))
    });
    let entries: BTreeMap<_, _> = entries.collect();
    let flags = ringlookupd::options::flags().map(|flag| {
        let words = flag.default_in_words;
        let default = entries[flag.name];
        assert!(default.is_some_and(|default| default.ends_with(words)) || words.is_empty(), "{}", flag.name);
        (format!("-{}", flag.name), if words.is_empty() { default } else { Some(words) }.map(str::to_owned))
    });
    let flags: BTreeMap<_, _> = flags.collect();
    assert_eq!(entries.len(), flags.len());
    flags
}

fn assert_default(flag: &str, described: &str, actual: Option<&str>) {
    let described = described.replace('`', "");
    assert_eq!(described.trim_end(), actual.unwrap_or_default().trim_end(), "{flag}");
}

#[test]
fn every_flag_is_described_with_its_default() {
    let flags = flags();
    let settings = [rows("### Settings"), rows("### Limits")].concat();
    for row in &settings {
        let [flag, default, meaning] = &row[..] else { panic!("{row:?}") };
        let flag = flag.trim_matches('`');
        let actual = flags.get(flag).unwrap_or_else(|| panic!("there is no {flag}"));
        assert_default(flag, default, actual.as_deref());
        assert!(!meaning.is_empty(), "{flag}");
    }
    let command_line_only = rows("### On the command line only");
    let described = [settings, command_line_only].concat();
    let described: Vec<_> = described.iter().flat_map(|row| spans(&row[0])).collect();
    assert_eq!(described.len(), set(described.iter().copied()).len(), "a flag is described twice");
    let help = ["-help", "-h"];
    assert_eq!(set(described), set(flags.keys().map(String::as_str).chain(help)));
}

/// The table of limits is where a limit is declared: flag, help, place in the list of limits and metric are its row's.
#[test]
fn every_limit_is_what_its_row_says() {
    let (_, help) = run(&["-help"]);
    let described = rows("### Limits");
    let server = Server::start(NO_FLAGS);
    let metrics = get(&mut connect(server.http), "/metrics");
    let labels = metrics.lines().filter_map(|line| {
        let (label, _) = line.strip_prefix("nsqlookupd_limit_exceeded_total{limit=\"")?.split_once('"')?;
        Some(label)
    });
    assert_eq!(set(labels), set(Limit::ALL.map(Limit::name)));
    for limit in Limit::ALL {
        let flag = format!("-{}", limit.name());
        let entry = help.split("\n  -").find(|entry| entry.split_whitespace().next() == Some(limit.name()));
        let entry = entry.unwrap_or_else(|| panic!("-help lacks {flag}"));
        assert!(entry.contains(limit.row().meaning), "{flag}: {entry}");
        assert!(described.iter().any(|row| row[0].trim_matches('`') == flag), "{flag} is not among the limits");
    }
}

#[test]
fn the_readme_has_the_same_defaults() {
    let flags = flags();
    for row in rows_of("README.md", "## Flags") {
        let flag = row[0].trim_matches('`');
        let actual = flags.get(flag).unwrap_or_else(|| panic!("there is no {flag}"));
        assert_default(flag, &row[1], actual.as_deref());
    }
}

/// The error about an unknown key lists all keys. Each is in the example too, where a unit test reads the defaults.
#[test]
fn every_setting_is_a_key_of_the_file() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "nothing_like_it = 1\n").expect("it is open");
    let (_, error) = run(&["-config", file.path().to_str().expect("UTF-8")]);
    let (_, keys) = error.trim_end().rsplit_once("use ").expect("what is allowed");
    let described = [rows("### Settings"), rows("### Limits")].concat();
    let described: BTreeSet<_> =
        described.iter().map(|row| row[0].trim_matches(['`', '-']).replace('-', "_")).collect();
    assert_eq!(set(keys.split(", ")), described);
    let example = read("contrib/nsqlookupd.cfg.example");
    let example = example.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = "));
    let deprecated = ["verbose"];
    assert_eq!(set(example.map(|(key, _)| key).chain(deprecated)), described);
}

/// A series: the family, and the labels with their values.
fn series(sample: &str) -> (&str, Vec<(&str, &str)>) {
    let (series, _) = sample.rsplit_once(' ').expect("a value");
    let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
    (name, labels.map(|(label, value)| (label, value.trim_end_matches('"'))).collect())
}

/// The body of a server's `/metrics`, after a request that has failed.
fn metrics() -> String {
    let server = Server::start(NO_FLAGS);
    let mut client = connect(server.http);
    get(&mut client, "/nothing");
    let response = get(&mut client, "/metrics");
    response.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

#[test]
fn every_metric_is_described_with_its_type_and_labels() {
    assert_described("## Metrics", &metrics());
}

#[test]
fn every_metric_of_topics_is_described_with_its_type_and_labels() {
    let server = Server::start(NO_FLAGS);
    let mut client = connect(server.http);
    post(&mut client, "/topic/create?topic=t");
    let response = get(&mut client, "/metrics/topics");
    assert_described("### Metrics of topics", response.split_once("\r\n\r\n").expect("a body").1);
}

/// The section may have a table of labels before that of metrics.
fn assert_described(section: &str, text: &str) {
    let mut actual = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            actual.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
        } else if !line.starts_with('#') {
            let (name, labels) = series(line);
            let family = actual.keys().find(|family| {
                name.strip_prefix(&***family).is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
            });
            let family = family.unwrap_or_else(|| panic!("{line} has no type")).clone();
            let labels = labels.into_iter().map(|(label, _)| label.to_owned()).filter(|label| label != "le");
            actual.get_mut(&family).expect("found").1 = labels.collect::<Vec<_>>();
        }
    }
    let rows = rows(section).into_iter().filter(|row| row.len() == 5 && row[0].starts_with('`'));
    let described = rows.map(|row| {
        let [name, kind, labels, meaning, action] = &row[..] else { panic!("{row:?}") };
        assert!(!meaning.is_empty() && !action.is_empty(), "{name}");
        let labels = spans(labels).map(str::to_owned).collect::<Vec<_>>();
        (name.trim_matches('`').to_owned(), (kind.clone(), labels))
    });
    assert_eq!(described.collect::<BTreeMap<_, _>>(), actual);
}

#[test]
fn every_label_is_described_with_its_values() {
    let text = metrics();
    let mut actual = BTreeMap::<_, BTreeSet<_>>::new();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        for (label, value) in series(sample).1 {
            actual.entry(label.to_owned()).or_default().insert(value.to_owned());
        }
    }
    let rows = rows("## Metrics").into_iter().filter(|row| row.len() == 2);
    let described: BTreeMap<_, _> =
        rows.map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect();
    for (label, values) in &actual {
        // Those of the build are its own, and a histogram has its bounds.
        if ["version", "commit", "target", "rustc", "le"].contains(&&**label) {
            continue;
        }
        let text = described.get(label).unwrap_or_else(|| panic!("{label} is not described"));
        let listed = set(spans(text));
        match &**label {
            "backend" => assert!(values.is_subset(&listed), "{values:?}"),
            // These are described in words.
            "code" | "limit" | "worker" => assert!(listed.is_empty(), "{text}"),
            "route" => assert_eq!(values - &listed, set(routes().iter().map(String::as_str)), "{text}"),
            _ => assert_eq!(*values, listed, "{label}"),
        }
    }
    let undescribed = described.keys().filter(|label| !actual.contains_key(*label));
    assert_eq!(undescribed.collect::<Vec<_>>(), Vec::<&String>::new());
}

fn routes() -> BTreeSet<String> {
    set(Endpoint::ALL.iter().map(|endpoint| endpoint.path()))
}

/// The methods come from the server.
#[test]
fn every_endpoint_is_described_with_its_method() {
    let paths = routes();
    let server = Server::start(NO_FLAGS);
    let mut client = connect(server.http);
    let rows = rows("## Endpoints");
    assert_eq!(set(rows.iter().map(|row| row[1].trim_matches('`'))), paths);
    for row in rows {
        let options = request("OPTIONS", row[1].trim_matches('`'));
        let response = exchange(&mut client, &options).expect("a response");
        let allowed = response.lines().find_map(|line| line.strip_prefix("Allow: ")).expect("a path");
        let methods = set(allowed.split(", ").filter(|method| *method != "OPTIONS"));
        assert_eq!(methods, set(row[0].split(", ")), "{row:?}");
    }
}

/// Every exit code that an operator can bring about is described, and no other.
#[test]
fn every_exit_code_is_described() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = format!("-tcp-address={}", taken.local_addr().expect("bound"));
    let runs: [&[&str]; 5] = [&["-version"], &["-help"], &["-bogus"], &["-config=/nonexistent"], &[&port]];
    let mut codes: BTreeSet<_> = runs.into_iter().map(|args| run(args).0.code()).collect();
    codes.insert(Server::start(NO_FLAGS).stop().code());
    let described = rows("## Exit codes").into_iter().map(|row| row[0].trim_matches('`').parse().ok());
    assert_eq!(described.collect::<BTreeSet<_>>(), codes);
}

/// Which signals the process takes or ignores is in its status.
#[test]
fn every_signal_is_described() {
    // Rust's runtime takes two of these for itself, to report a stack overflow, and address sanitizer all.
    const RUNTIME: &[i32] = if cfg!(sanitized) {
        &[libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE]
    } else {
        &[libc::SIGSEGV, libc::SIGBUS]
    };
    let rows = rows("## Signals");
    let described = set(rows.iter().flat_map(|row| spans(&row[0])));
    assert!(rows.iter().any(|row| row[0] == "real-time signals"));
    let mut server = Server::start(NO_FLAGS);
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let mask = |status: &str, name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect("a mask");
        u64::from_str_radix(mask.trim(), 16).expect("a mask")
    };
    let (ignored, real_time) = (mask(&status, "SigIgn:"), 1 << (libc::SIGRTMIN() - 1));
    let taken = mask(&status, "SigCgt:") | ignored;
    assert!(taken & real_time != 0);
    // What this test was started with: a shell's background jobs ignore SIGQUIT.
    let inherited = ignored & mask(&read("/proc/self/status"), "SigIgn:");
    let numbers = (1..32).filter(|number| taken >> (number - 1) & 1 == 1 && !RUNTIME.contains(number));
    let signals = numbers.map(|number| {
        let signal = nix::sys::signal::Signal::try_from(number).expect("a signal that has a name");
        (signal.as_str().to_owned(), inherited >> (number - 1) & 1 == 1)
    });
    let names = signals.filter(|(name, is_inherited)| !is_inherited || described.contains(name));
    assert_eq!(described, names.map(|(name, _)| name).collect());
    server.signal(Signal::HUP);
    server.signal(Signal::INT);
    assert_eq!(server.wait_for_exit(PATIENCE).and_then(|status| status.code()), Some(0));
}

/// The metrics that a text of PromQL names.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("nsqlookupd_") || word.starts_with("process_"));
    // Those of a histogram have a suffix.
    set(names.map(|name| {
        let suffix = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        suffix.unwrap_or(name)
    }))
}

fn metrics_described() -> BTreeSet<String> {
    let rows = rows("## Metrics");
    set(rows.iter().map(|row| row[0].trim_matches('`')).filter(|name| name.contains('_')))
}

/// Whether they have data, and labels that exist, is for a real Prometheus to say: see `tests/interop`.
#[test]
fn every_metric_of_the_dashboard_exists() {
    let used: BTreeSet<_> = dashboard_queries().iter().flat_map(|query| metrics_in(&query.expression)).collect();
    let described = metrics_described();
    assert_eq!(used.difference(&described).collect::<Vec<_>>(), Vec::<&String>::new());
    // Its figures are all there are: a new metric wants a panel.
    assert_eq!(described.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Each alert has a section in the operator's guide, which its link leads to, and tests of when it fires.
#[test]
fn every_alert_is_described() {
    let rules = contrib::read("prometheus/alerts.yml");
    let used = metrics_in(&rules);
    assert_eq!(used.difference(&metrics_described()).collect::<Vec<_>>(), Vec::<&String>::new());
    let tests = contrib::read("prometheus/alerts_test.yml");
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let guide = fs::read_to_string(guide).unwrap_or_default();
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let name = alert.lines().next().expect("a name");
        for part in ["expr: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        let runbook = format!("runbook_url: docs/operating.md#{}\n", name.to_lowercase());
        assert!(alert.contains(&runbook), "{name}: {alert}");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
        let heading = |line: &str| line.starts_with('#') && line.trim_start_matches('#').trim() == name;
        assert!(guide.is_empty() || guide.lines().any(heading), "docs/operating.md has no section {name}");
    }
}

/// The source files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The texts in the source that follow `call`, with `*` for what varies.
fn texts_after(call: &str) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for path in files.into_iter().filter(|path| path.file_name().is_some_and(|name| name != "tests.rs")) {
        let source = read(path);
        let (program, _) = source.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&source, ""));
        for after in program.split(call).skip(1) {
            let Some(text) = after.trim_start().strip_prefix('"') else { continue };
            let (text, _) = text.split_once('"').expect("the end of a text");
            // A backslash at the end of a line drops the line's end and the indentation of the next.
            let text: String = text.split("\\\n").map(str::trim_start).collect();
            let mut shown = String::new();
            for (nth, part) in text.split(['{', '}']).enumerate() {
                shown.push_str(if nth % 2 == 0 { part } else { "*" });
            }
            texts.insert(shown);
        }
    }
    texts
}

/// A line that is another value's text (`*`) does not name that text here: the page has it all the same.
#[test]
fn every_line_to_alert_on_is_described() {
    let described: BTreeMap<_, _> = (rows("## Log lines").into_iter())
        .map(|row| (row[1].trim_matches('`').to_owned(), row[0].clone()))
        .collect();
    for (level, call) in
        [("WARNING", ".warn(format_args!("), ("ERROR", ".error(format_args!("), ("FATAL", ".fatal(format_args!(")]
    {
        let lines = texts_after(call);
        for line in lines.iter().filter(|line| *line != "*") {
            assert_eq!(described.get(line).map(String::as_str), Some(level), "{line}");
        }
    }
    let texts = &texts_after("format_args!(") | &texts_after("format!(");
    for line in described.keys() {
        assert!(texts.contains(line), "the program has no such line: {line}");
    }
}

/// The pages for whoever uses or changes the program.
fn pages() -> impl Iterator<Item = PathBuf> {
    let pages = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"));
    let pages = pages.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain(["README.md", "SECURITY.md", "CONTRIBUTING.md", "contrib/README.md"].map(PathBuf::from))
}

/// A page without its blocks of code.
fn prose(page: &Path) -> String {
    read(page).split("```").step_by(2).collect()
}

/// The path of an endpoint that a span such as `GET /lookup?topic=t` names.
fn endpoint(span: &str) -> Option<&str> {
    let target = ["GET ", "HEAD ", "POST ", "PUT "].iter().find_map(|method| span.strip_prefix(method));
    let path = target.unwrap_or(span).split(['?', ' ']).next()?;
    // Files, what stock alone has, and what is not there.
    let others = ["/debug/pprof", "/etc/", "/proc", "/usr/", "/var/", "/ringlookupd", "/nsqlookupd"];
    let is_endpoint = path.len() > 1 && path.starts_with('/') && !path[1..].starts_with('/');
    (is_endpoint && !others.iter().any(|other| path.starts_with(other))).then_some(path)
}

/// Flags, endpoints, metrics and files that the pages name exist.
#[test]
fn what_the_pages_name_is_there() {
    let flags = flags();
    let reference = read("docs/reference.md");
    let endpoints = rows("## Endpoints");
    let endpoints = set(endpoints.iter().map(|row| row[1].trim_matches('`')));
    for page in pages() {
        for span in spans(&prose(&page)) {
            let is_flag = span
                .strip_prefix('-')
                .is_some_and(|name| name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase()));
            let name = span.split(['=', ' ']).next().expect("some");
            if is_flag && !["-h", "-help"].contains(&name) {
                assert!(flags.contains_key(name), "{}: there is no {name}", page.display());
            }
            if let Some(path) = endpoint(span) {
                let key =
                    [("/config/", "/config/{key}"), ("/ui/data/", "/ui/data/{document}"), ("/ui/", "/ui/{file}")];
                let key = key.into_iter().find_map(|(start, key)| path.starts_with(start).then_some(key));
                assert!(
                    path == "/config" || endpoints.contains(key.unwrap_or(path)),
                    "{}: {span}",
                    page.display()
                );
            }
            if span.starts_with("nsqlookupd_") {
                let name = span.split('{').next().expect("some");
                assert!(reference.contains(&format!("`{name}`")), "{}: {span}", page.display());
            }
            let folders = ["src/", "tests/", "docs/", "perf/", "benches/", "contrib/", ".ci/", ".github/"];
            if folders.iter().any(|folder| span.starts_with(folder)) && !span.contains(['*', ' ']) {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(span);
                assert!(path.exists(), "{}: there is no {span}", page.display());
            }
        }
    }
}

/// `.ci/etcd` builds what these files pin.
#[test]
fn the_versions_of_etcd_that_tests_run_with_are_named() {
    let page = read("docs/cluster.md");
    for file in ["tests/cluster/etcd-3.5/go.mod", "tests/cluster/etcd-3.6/go.mod"] {
        let pinned = read(file);
        let version = pinned.lines().find_map(|line| line.trim().strip_prefix("go.etcd.io/etcd/server/v3 v"));
        let version = version.and_then(|rest| rest.split(' ').next()).expect("a version");
        assert!(page.contains(version), "docs/cluster.md does not name etcd {version}");
    }
}

/// The anchors of a page's headings, as forges make them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let headings = prose(page);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Links between the pages lead to a file, and to a heading where they name one.
#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in pages().map(|page| root.join(page)) {
        for link in prose(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") {
                continue;
            }
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            assert!(anchor.is_empty() || anchors(&target).contains(anchor), "{}: {link}", page.display());
        }
    }
}
