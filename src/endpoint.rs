//! The endpoints of the HTTP API, by their paths: what the route table leads to, and what requests are counted by.

macro_rules! endpoints {
    ($($name:ident $path:literal)*) => {
        /// What a request asks for. Each has a path of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint { $($name),* }

        impl Endpoint {
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its path in the route table.
            pub fn path(self) -> &'static str {
                match self { $(Self::$name => $path),* }
            }
        }
    };
}

endpoints! {
    Ping "/ping"
    Info "/info"
    Lookup "/lookup"
    Topics "/topics"
    Channels "/channels"
    Nodes "/nodes"
    Debug "/debug"
    Metrics "/metrics"
    TopicMetrics "/metrics/topics"
    Health "/health"
    Ready "/ready"
    Config "/config/{key}"
    CreateTopic "/topic/create"
    DeleteTopic "/topic/delete"
    CreateChannel "/channel/create"
    DeleteChannel "/channel/delete"
    TombstoneTopic "/topic/tombstone"
}
