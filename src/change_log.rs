//! The `DB:` lines of the log: what each change to the registry has done. The first consumer of the stream of changes.

use std::fmt;

use crate::log::{Level, Log};
use crate::registry::{
    Change, ChannelNames, Deleted, Forgotten, Identified, Missing, Name, Older, Outcome, Producer, Registered,
};

/// Logs a change. The lines are stock's, but for a disconnect, which has one line with a count instead of one for each
/// registration, and for what stock does not know.
pub fn write(change: &Change, outcome: &Outcome, log: &Log) {
    if !log.enabled(Level::Warn) {
        return;
    }
    match (change, outcome) {
        (Change::Identify(producer), Outcome::Identified(who)) => identified(producer, who, log),
        (Change::Register { producer, topic, channel }, Outcome::Registered(changed)) => {
            if channel.is_some() && changed.channels > 0 {
                registration(producer, "REGISTER", "channel", topic, channel.as_ref(), log);
            }
            if changed.topic {
                registration(producer, "REGISTER", "topic", topic, None, log);
            }
        }
        (Change::Unregister { producer, topic, channel }, Outcome::Unregistered { changed, channels }) => {
            unexpected(producer, topic, channels, log);
            match channel {
                Some(_) if changed.channels > 0 => {
                    registration(producer, "UNREGISTER", "channel", topic, channel.as_ref(), log);
                }
                None if changed.topic => registration(producer, "UNREGISTER", "topic", topic, None, log),
                _ => {}
            }
        }
        (Change::Disconnect(producer), Outcome::Disconnected { topics }) => {
            let client = producer.remote_address();
            log.client(&client)
                .info(format_args!("DB: client({client}) UNREGISTER category:client topics:{topics}"));
        }
        (Change::Create { topic, channel }, _) => {
            if let Some(channel) = channel {
                let log = log.topic(topic).channel(Some(channel));
                log.info(format_args!("DB: adding channel({channel}) in topic({topic})"));
            }
            log.topic(topic).info(format_args!("DB: adding topic({topic})"));
        }
        (Change::Delete { topic, channel }, Outcome::Deleted(deleted)) => {
            deletion(topic, channel.as_ref(), deleted, log);
        }
        (Change::Tombstone { topic, node }, Outcome::Tombstoned { producers }) => {
            tombstone(topic, node, *producers, log);
        }
        (Change::Forget { .. }, Outcome::Forgotten(forgotten)) => {
            // Nothing, when another worker was faster.
            if *forgotten != Forgotten::default() {
                log.info(format_args!("DB: {forgotten}"));
            }
        }
        (Change::Restore(_), Outcome::Restored { producers, registered: Registered { topics, channels } }) => {
            log.info(format_args!("DB: restored producers:{producers} topics:{topics} channels:{channels}"));
        }
        (Change::EndGrace { .. }, Outcome::GraceEnded(Some(Missing { producers, topics }))) => {
            log.info(format_args!(
                "DB: -restore-grace is over: producers that did not come back:{producers}, topics that were not registered \
                 again by others:{topics}"
            ));
        }
        // A reload logs its own lines, and the end of the grace has one.
        (Change::SetLifetimes(_) | Change::Release { .. } | Change::Hide { .. } | Change::EndGrace { .. }, _) => {}
        _ => unreachable!("an outcome is its change's"),
    }
}

fn identified(producer: &Producer, Identified { is_expected, older }: &Identified, log: &Log) {
    let client = producer.remote_address();
    let (log, node) = (log.client(&client), producer.node());
    log.info(format_args!("DB: client({client}) REGISTER category:client key: subkey:"));
    if *is_expected {
        log.info(format_args!("DB: client({client}) is back: node {node} was restored"));
    }
    if let Some(Older { remote_address, silence }) = older {
        log.info(format_args!(
            "DB: client({client}) is node {node} as client({remote_address}) is, whose last PING was {silence:.1?} ago: the older \
             is not listed once it has been silent for -supersede-silent"
        ));
    }
}

fn registration(client: &Producer, verb: &str, category: &str, topic: &Name, channel: Option<&Name>, log: &Log) {
    let client = client.remote_address();
    let log = log.client(&client).topic(topic).channel(channel);
    let channel = channel.map_or("", Name::as_str);
    log.info(format_args!("DB: client({client}) {verb} category:{category} key:{topic} subkey:{channel}"));
}

/// Channels that a producer has lost with their topic: nsqd unregisters channels first.
fn unexpected(client: &Producer, topic: &Name, ChannelNames { names, more }: &ChannelNames, log: &Log) {
    let client = client.remote_address();
    let log = log.client(&client).topic(topic);
    for channel in names {
        log.channel(Some(channel)).warn(format_args!(
            "client({client}) unexpected UNREGISTER category:channel key:{topic} subkey:{channel}"
        ));
    }
    if *more > 0 {
        log.warn(format_args!(
            "client({client}) unexpected UNREGISTER category:channel key:{topic}, {more} more channels"
        ));
    }
}

fn deletion(topic: &Name, channel: Option<&Name>, deleted: &Deleted, log: &Log) {
    let ChannelNames { names, more } = &deleted.channels;
    let log = log.topic(topic);
    for channel in names {
        log.channel(Some(channel)).info(format_args!("DB: removing channel({channel}) from topic({topic})"));
    }
    if *more > 0 {
        log.info(format_args!("DB: removing {more} more channels from topic({topic})"));
    }
    let log = log.channel(channel);
    match channel {
        Some(channel) if deleted.existed => {
            log.info(format_args!("DB: removing channel({channel}) from topic({topic})"));
        }
        None if deleted.was_listed => log.info(format_args!("DB: removing topic({topic})")),
        _ => {}
    }
    // An nsqd registers a name when it makes it and when it connects, and has no reason to do so again.
    let active = deleted.active_producers;
    if active > 0 {
        let what = match channel {
            Some(channel) => format!("channel({channel}) of topic({topic})"),
            None => format!("topic({topic})"),
        };
        log.warn(format_args!(
            "{what} was deleted while {active} connected nsqd have it: not listed for them until they register it \
             again, when they reconnect or create it anew; delete it on them too, as nsqadmin does"
        ));
    }
}

/// Logs a tombstone, of a topic that may not even have a valid name.
pub fn tombstone(topic: impl fmt::Display, node: &[u8], producers: usize, log: &Log) {
    let node = String::from_utf8_lossy(node);
    let log = log.topic(&topic);
    log.info(format_args!("DB: setting tombstone for producer@{node} of topic({topic})"));
    if producers == 0 {
        log.warn(format_args!(
            "no tombstone set: topic({topic}) has no producer@{node}; a node is \
             broadcast_address:http_port, such as nsqd-1:4151 or [2001:db8::1]:4151"
        ));
    }
}
