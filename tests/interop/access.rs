//! Real clients where not everybody may do everything: by token, by address, and nsqd, which has no token to show.

use minreq::Method;
use ringlookupd::io::Backend;
use serde_json::json;

use crate::cluster::{Lookupd, Nsqadmin, Nsqd};
use crate::daemon::Daemon;
use crate::programs::{Client, Programs};
use crate::tls::Secure;
use crate::token_file::token_file;
use crate::wait;

on_both_drivers!(
    go_nsq_shows_its_secret,
    go_nsq_shows_its_secret_within_tls,
    nsqadmin_is_let_in_by_address,
    nsqd_makes_channels_beforehand_where_its_network_is_listed,
);

/// The token of consumers, and that of nobody who is tested here.
const TOKENS: &str = "consumers read s3cret\nadministrators admin 0ther\n";

/// A consumer with the secret finds what is published; one with another secret is refused, and goes on asking.
fn find_by_secret(programs: &Programs, lookupd: &Lookupd, address: &str, trust: Option<&str>) {
    let nsqd = Nsqd::start(programs, &[lookupd]);
    let start = |channel: &str, secret: &str| {
        let mut command = programs.consumer(Client::GoNsq, "orders", channel, 2, &[address]);
        command.env("INTEROP_AUTH_SECRET", secret).envs(trust.map(|file| ("SSL_CERT_FILE", file)));
        Daemon::start(&mut command)
    };
    let _refused = start("refused", "wr0ng");
    lookupd.server.wait_for_log("401 GET /lookup?topic=orders");
    let consumer = start("work", "s3cret");
    lookupd.server.wait_for_log("404 GET /lookup?topic=orders");
    nsqd.publish("orders", &["a", "b"]);
    assert_eq!(consumer.finish(), ["a", "b"]);
    assert_eq!(nsqd.unfinished("orders", "refused"), None, "it has not found this nsqd");
    let log = lookupd.server.log();
    assert!(!log.contains("s3cret") && !log.contains("wr0ng"), "{log}");
}

fn go_nsq_shows_its_secret(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let (_file, flag) = token_file(TOKENS);
    let lookupd = Lookupd::start_with(backend, &[flag]);
    find_by_secret(&programs, &lookupd, &lookupd.http.to_string(), None);
}

fn go_nsq_shows_its_secret_within_tls(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let (_file, flag) = token_file(TOKENS);
    let secure = Secure::start(backend, &[&flag]);
    let trust = secure.authority.file().display().to_string();
    find_by_secret(&programs, &secure.lookupd, &secure.url(), Some(&trust));
}

/// nsqadmin has no token: its host is listed. Where it may only read, it shows what there is and changes nothing.
fn nsqadmin_is_let_in_by_address(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let orders = json!({"topic": "orders", "channel": "archive"});
    for (admins, may_change) in [("127.0.0.1/32", true), ("10.0.0.0/8", false)] {
        let (_file, tokens) = token_file(TOKENS);
        let flags = [tokens, "-http-allow=127.0.0.0/8".to_owned(), format!("-http-admin-allow={admins}")];
        let lookupd = Lookupd::start_with(backend, &flags);
        let nsqd = Nsqd::start(&programs, &[&lookupd]);
        nsqd.create_topic("present");
        lookupd.await_producers("present", &[&nsqd]);
        let admin = Nsqadmin::start(&programs, &[&lookupd]);
        assert_eq!(admin.get("/api/topics")["topics"], json!(["present"]));
        let response = admin.try_act(Method::Post, "/api/topics", &orders);
        assert_eq!(lookupd.topics().contains("orders"), may_change, "{response:?}");
        assert_eq!((200..300).contains(&response.status_code), may_change, "{response:?}");
        lookupd.server.wait_for_log(if may_change {
            "POST /topic/create topic(orders): 200"
        } else {
            "401 POST /topic/create?topic=orders"
        });
    }
}

/// nsqd asks for the channels of a new topic without a token. Refused, it makes the topic all the same, and messages that
/// are published before a consumer has found it wait in no channel.
fn nsqd_makes_channels_beforehand_where_its_network_is_listed(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    for is_listed in [true, false] {
        let (_file, tokens) = token_file(TOKENS);
        let mut flags = vec![tokens, "-http-admin-allow=10.0.0.0/8".to_owned()];
        flags.extend(is_listed.then(|| "-http-allow=127.0.0.0/8".to_owned()));
        let lookupd = Lookupd::start_with(backend, &flags);
        let log = || lookupd.server.log();
        assert_eq!(log().contains("channels are not made beforehand"), !is_listed, "{}", log());
        let first = Nsqd::start(&programs, &[&lookupd]);
        first.create_topic("orders");
        first.create_channel("orders", "archive");
        lookupd.server.wait_for_log("category:channel key:orders subkey:archive");
        let second = Nsqd::start(&programs, &[&lookupd]);
        second.create_topic("another");
        lookupd.server.wait_for_log("REGISTER category:topic key:another");
        second.publish("orders", &["one", "two"]);
        if is_listed {
            wait::until_eq("the channel's messages", &Some(2), || second.unfinished("orders", "archive"));
        } else {
            lookupd.server.wait_for_log("401 GET /channels?topic=orders");
            assert_eq!(second.unfinished("orders", "archive"), None);
        }
    }
}
