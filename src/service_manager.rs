//! What is reported to the service manager (systemd's sd_notify(3)): that the server is ready, reloads or stops, what it
//! serves, and that it is alive. Without `NOTIFY_SOCKET` in the environment nothing is sent.

use std::env;
use std::time::Duration;

use sd_notify::NotifyState::{self, MonotonicUsec, Ready, Reloading, Status, Stopping, Watchdog};

use crate::limits::STATUS_PERIOD;
use crate::log::Log;

/// The service manager, if there is one.
pub struct ServiceManager {
    log: Log,
    is_there: bool,
    /// It restarts a server that has not been alive for so long.
    watchdog: Option<Duration>,
    /// The last status that was sent.
    status: String,
    /// A message could not be sent, which is logged once.
    has_failed: bool,
}

impl ServiceManager {
    /// What the environment tells of it.
    pub fn from_env(log: &Log) -> Self {
        Self {
            log: log.clone(),
            is_there: env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()),
            watchdog: sd_notify::watchdog_enabled().filter(|period| !period.is_zero()),
            status: String::new(),
            has_failed: false,
        }
    }

    /// How often [`ServiceManager::report`] is due: twice in the watchdog's time, as sd_watchdog_enabled(3) has it. `None`
    /// where there is nobody to report to.
    pub fn period(&self) -> Option<Duration> {
        let watchdog = self.watchdog.map(|period| period / 2);
        self.is_there.then(|| watchdog.map_or(STATUS_PERIOD, |period| period.min(STATUS_PERIOD)))
    }

    /// After how long without an iteration a worker is stuck; `None` without a watchdog.
    pub fn patience(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_there)
    }

    /// The server serves.
    pub fn ready(&mut self, status: String) {
        self.notify(&[Ready, Status(&status)]);
        self.status = status;
    }

    /// A reload has begun; [`ServiceManager::ready`] ends it. The time is that of `Type=notify-reload`.
    pub fn reloading(&mut self) {
        self.notify(&[Reloading, NotifyState::monotonic_usec_now().unwrap_or(MonotonicUsec(0))]);
    }

    /// Another process is the main process from now on.
    pub fn is_followed_by(&mut self, pid: u32) {
        self.notify(&[NotifyState::MainPid(pid)]);
    }

    /// The server stops.
    pub fn stopping(&mut self) {
        self.notify(&[Stopping, Status("stopping")]);
    }

    /// What the server serves, and that it is alive, if it is.
    pub fn report(&mut self, status: String, is_alive: bool) {
        if status != self.status {
            self.notify(&[Status(&status)]);
            self.status = status;
        }
        if is_alive && self.watchdog.is_some() {
            self.notify(&[Watchdog]);
        }
    }

    fn notify(&mut self, state: &[NotifyState<'_>]) {
        if !self.is_there {
            return;
        }
        if let Err(error) = sd_notify::notify(state)
            && !std::mem::replace(&mut self.has_failed, true)
        {
            self.log.warn(format_args!("cannot reach the service manager at NOTIFY_SOCKET - {error}"));
        }
    }
}
