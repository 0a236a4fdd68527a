//! The program as it is run, against a small nsqlookupd that answers rightly, or wrongly in one way.

mod cluster;
mod command_line;
mod lookupd;
mod restart;
mod scenarios;
mod support;
mod watch;
mod wrong_answers;
