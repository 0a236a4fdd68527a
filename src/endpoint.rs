//! The endpoints of the HTTP API, by their paths: what the route table leads to, what requests are counted by, and what
//! each asks of its client.

use crate::access::Class;

macro_rules! endpoints {
    ($($name:ident $path:literal $class:ident $(or $other:ident for $method:ident)?;)*) => {
        /// What a request asks for. Each has a path of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint { $($name),* }

        impl Endpoint {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its path in the route table.
            pub fn path(self) -> &'static str {
                match self { $(Self::$name => $path),* }
            }

            /// What a request with this method asks of its client.
            #[must_use]
            pub fn class(self, method: &str) -> Class {
                match self {
                    $($(Self::$name if method == stringify!($method) => Class::$other,)?)*
                    $(Self::$name => Class::$class,)*
                }
            }
        }
    };
}

endpoints! {
    Ping "/ping" Open;
    Info "/info" Read;
    Lookup "/lookup" Read;
    Topics "/topics" Read;
    Channels "/channels" Read;
    Nodes "/nodes" Read;
    Watch "/watch" Read;
    Debug "/debug" Read;
    Metrics "/metrics" Read;
    TopicMetrics "/metrics/topics" Read;
    Health "/health" Open;
    Ready "/ready" Open;
    Config "/config/{key}" Read or Admin for PUT;
    UiFile "/ui/{file}" Open;
    UiData "/ui/data/{document}" Read;
    CreateTopic "/topic/create" Admin;
    DeleteTopic "/topic/delete" Admin;
    CreateChannel "/channel/create" Admin;
    DeleteChannel "/channel/delete" Admin;
    TombstoneTopic "/topic/tombstone" Admin;
}
