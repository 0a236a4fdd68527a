//! Spreading what many clients would otherwise do at the same moment.

use crate::clock::Timestamp;
use crate::io::Token;

/// A number from 0 to below 1, another for each connection and time. The same for the same, so that a simulation repeats.
pub fn spread(token: Token, now: Timestamp) -> f64 {
    let seed = u64::from(token.slot) << 32 | u64::from(token.generation);
    // The finalizer of SplitMix64.
    let mut mixed = seed.wrapping_add(now.nanos().cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from((mixed >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_moment_are_spread_evenly() {
        let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
        let mut shares = Vec::new();
        for slot in 0..10_000 {
            let share = spread(Token { slot, generation: 0 }, now);
            assert!((0.0..1.0).contains(&share));
            shares.push(share);
        }
        for tenth in 0..10 {
            let from = f64::from(tenth) / 10.0;
            let count = shares.iter().filter(|&&share| share >= from && share < from + 0.1).count();
            assert!((800..1200).contains(&count), "{from}: {count}");
        }
    }
}
