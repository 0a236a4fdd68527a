//! How a kernel behaves within its contract.

/// How inconvenient the kernel is, each in parts of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct FaultProfile {
    /// How often something that could complete does so in a turn.
    pub prompt: usize,
    pub no_buffers: usize,
    /// How often a multishot ends though it could go on.
    pub disarms: usize,
    /// How often a send that is not all out is told of; if at all, sends are also slower than there is room.
    pub short_send: usize,
    pub accept_error: usize,
    /// How often a send or a receive fails for no fault of the client.
    pub failure: usize,
    /// The largest piece that is received at once.
    pub piece: usize,
}

impl FaultProfile {
    /// Everything completes at once.
    pub const KIND: Self = Self {
        prompt: 1000,
        no_buffers: 0,
        disarms: 0,
        short_send: 0,
        accept_error: 0,
        failure: 0,
        piece: 1 << 20,
    };
}
