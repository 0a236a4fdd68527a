use super::*;
use crate::endpoint::Endpoint;
use crate::limits::LOG_PAUSE;

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|other| other == *line), "{line} is not in {text}");
    }
}

#[test]
fn counters_of_all_workers_are_added_up() {
    let metrics = Metrics::default();
    let (some, other) = (metrics.worker(START), metrics.worker(START));
    some.accepted[Service::Http as usize].increment();
    other.accepted[Service::Http as usize].add(2);
    other.closed[Service::Http as usize].increment();
    some.exceeded[Limit::Topics as usize].increment();
    some.requests.count(Some(Endpoint::Lookup), "200");
    other.requests.count(Some(Endpoint::Lookup), "404");
    other.pings.increment();
    some.end_iteration(Duration::from_micros(15));
    other.end_iteration(Duration::from_millis(1500));
    other.begin_iteration(START.after(Duration::from_millis(500)));
    other.committed(3, Duration::from_nanos(1));
    let wall = Duration::from_secs(1_800_000_000);
    let now = START.after(Duration::from_millis(1250));
    let gauges = Gauges { now, wall, topics: 7, producers: 3, backend: "epoll", ready: true, ..Gauges::default() };
    let text = metrics.render(Format::Text, gauges);
    let build = concat!("nsqlookupd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",commit=\"");
    assert!(text.contains(build) && text.contains(",backend=\"epoll\"} 1\n"), "{text}");
    assert_has(
        &text,
        &[
            "nsqlookupd_workers 2",
            "nsqlookupd_ready 1",
            "nsqlookupd_topics 7",
            "nsqlookupd_producers{state=\"active\"} 3",
            "nsqlookupd_connections_accepted_total{listener=\"tcp\"} 0",
            "nsqlookupd_connections_accepted_total{listener=\"http\"} 3",
            "nsqlookupd_connections{listener=\"http\"} 2",
            "nsqlookupd_limit_exceeded_total{limit=\"max-topics\"} 1",
            "nsqlookupd_http_requests_total{route=\"/lookup\",code=\"200\"} 1",
            "nsqlookupd_http_requests_total{route=\"/lookup\",code=\"404\"} 1",
            "nsqlookupd_http_request_duration_seconds_bucket{route=\"/lookup\",le=\"1e-05\"} 0",
            "nsqlookupd_http_request_duration_seconds_bucket{route=\"/lookup\",le=\"2e-05\"} 1",
            "nsqlookupd_http_request_duration_seconds_bucket{route=\"/lookup\",le=\"1\"} 1",
            "nsqlookupd_http_request_duration_seconds_bucket{route=\"/lookup\",le=\"+Inf\"} 2",
            "nsqlookupd_http_request_duration_seconds_sum{route=\"/lookup\"} 1.500015",
            "nsqlookupd_iteration_duration_seconds_count 2",
            "nsqlookupd_commit_changes_bucket{le=\"5\"} 1",
            "nsqlookupd_worker_connections{worker=\"1\"} 1",
            "nsqlookupd_worker_requests_total{worker=\"1\"} 2",
            "nsqlookupd_worker_busy_seconds_total{worker=\"1\"} 1.5",
            "nsqlookupd_worker_last_iteration_timestamp_seconds{worker=\"1\"} 1799999999.25",
        ],
    );
    assert_eq!(metrics.heartbeats(), [START, START.after(Duration::from_millis(500))]);
}

/// Every sample stands below the type of its own family, which is given once. The formats differ in how they write the
/// bounds of buckets.
#[test]
fn both_formats_are_well_formed_and_say_the_same() {
    let metrics = Metrics::default();
    metrics.worker(START);
    let samples = [Format::Text, Format::OpenMetrics].map(|format| {
        let text = metrics.render(format, Gauges::default());
        let (mut seen, mut current, mut samples) = (Vec::new(), "", Vec::new());
        assert_eq!(text.ends_with("\n# EOF\n"), format == Format::OpenMetrics);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().expect("a name");
                assert!(!seen.contains(&current), "{current} is there twice");
                seen.push(current);
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let suffix = series.split('{').next().and_then(|name| name.strip_prefix(current));
                let suffix = suffix.unwrap_or_else(|| panic!("{line} is below {current}"));
                assert!(["", "_total", "_info", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                samples.push(if suffix == "_bucket" { current } else { series }.to_owned());
            }
        }
        samples.sort();
        samples
    });
    let [text, open_metrics] = samples;
    assert_eq!(text, open_metrics);
    for limit in Limit::ALL {
        assert!(text.contains(&format!("nsqlookupd_limit_exceeded_total{{limit=\"{}\"}}", limit.name())));
    }
}

#[test]
fn the_last_reload_counts() {
    let metrics = Metrics::default();
    let last = |expected: &str| {
        let text = metrics.render(Format::Text, Gauges::default());
        assert_has(&text, &[&format!("nsqlookupd_last_reload_successful {expected}")]);
        text
    };
    last("1");
    metrics.reload_failed();
    last("0");
    metrics.reload_succeeded();
    let text = last("1");
    let reloads =
        ["success", "failure"].map(|result| format!("nsqlookupd_reloads_total{{result=\"{result}\"}} 1"));
    assert_has(&text, &[&reloads[0], &reloads[1]]);
}

#[test]
fn the_figures_of_the_state_are_those_of_its_last_write() {
    let metrics = Metrics::default();
    let state = metrics.state();
    state.written(1, Duration::from_secs(9), Duration::from_secs(1_700_000_000));
    state.written(9_000_000, Duration::from_millis(250), Duration::from_secs(1_800_000_000));
    state.stamped(Duration::from_millis(1_800_000_010_500));
    assert_eq!([state.failed(START), state.failed(START)], [Some(1), None]);
    assert_eq!(state.failed(START.after(LOG_PAUSE)), Some(2));
    assert_has(
        &metrics.render(Format::Text, Gauges::default()),
        &[
            "nsqlookupd_state_writes_total 2",
            "nsqlookupd_state_write_errors_total 3",
            "nsqlookupd_state_write_seconds 0.25",
            "nsqlookupd_state_bytes 9000000",
            "nsqlookupd_state_saved_timestamp_seconds 1800000010.5",
        ],
    );
}

#[test]
fn a_line_a_minute_tells_of_all_since_the_last() {
    let metrics = Metrics::default();
    let counters = metrics.worker(START);
    let exceeded = |now| {
        counters.exceeded[Limit::Topics as usize].increment();
        metrics.exceeded_to_log(Limit::Topics, now)
    };
    assert_eq!(exceeded(START), Some(1));
    assert_eq!(exceeded(START), None);
    assert_eq!(exceeded(START.after(LOG_PAUSE / 2)), None);
    assert_eq!(exceeded(START.after(LOG_PAUSE)), Some(3));
    assert_eq!(metrics.exceeded_to_log(Limit::Channels, START), Some(0));
}
