//! What a ring's completions answer.

use super::{ListenerId, Token};

/// What a completion answers, packed into its user data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Accept(ListenerId),
    Receive(Token),
    Send(Token),
    Close(Token),
    Cancel,
    Wake,
}

impl Operation {
    const SLOT_BITS: u32 = u32::BITS;
    const GENERATION_BITS: u32 = Token::GENERATIONS.trailing_zeros();
    const CODE_SHIFT: u32 = Self::SLOT_BITS + Self::GENERATION_BITS;

    pub(super) fn pack(self) -> u64 {
        let listener = |ListenerId(id)| Token { slot: id, generation: 0 };
        let none = Token { slot: 0, generation: 0 };
        let (code, Token { slot, generation }) = match self {
            Self::Accept(id) => (0, listener(id)),
            Self::Receive(token) => (1, token),
            Self::Send(token) => (2, token),
            Self::Close(token) => (3, token),
            Self::Cancel => (4, none),
            Self::Wake => (5, none),
        };
        debug_assert!(generation < Token::GENERATIONS);
        code << Self::CODE_SHIFT | u64::from(generation) << Self::SLOT_BITS | u64::from(slot)
    }

    pub(super) fn unpack(packed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the slot is the lower half, the rest is masked")]
        let token = Token {
            slot: packed as u32,
            generation: (packed >> Self::SLOT_BITS) as u32 & (Token::GENERATIONS - 1),
        };
        match packed >> Self::CODE_SHIFT {
            0 => Self::Accept(ListenerId(token.slot)),
            1 => Self::Receive(token),
            2 => Self::Send(token),
            3 => Self::Close(token),
            4 => Self::Cancel,
            5 => Self::Wake,
            code => unreachable!("no operation has code {code}"),
        }
    }
}

const _: () = assert!(Operation::CODE_SHIFT + 8 == u64::BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_survives_its_packing() {
        for (slot, generation) in [(0, 0), (7, 3), (u32::MAX, Token::GENERATIONS - 1)] {
            let (token, listener) = (Token { slot, generation }, ListenerId(slot));
            for operation in [
                Operation::Accept(listener),
                Operation::Receive(token),
                Operation::Send(token),
                Operation::Close(token),
                Operation::Cancel,
                Operation::Wake,
            ] {
                assert_eq!(Operation::unpack(operation.pack()), operation);
            }
        }
    }
}
