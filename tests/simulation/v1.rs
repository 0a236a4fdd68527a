//! What an nsqd says, and what it must read: an oracle of the V1 protocol that knows only its own script.

use crate::rng::Rng;

/// Topics that all producers share.
pub const TOPICS: [&str; 4] = ["alpha", "beta", "gamma.x", "delta-y_0"];

/// Answers to IDENTIFY.
pub const IDENTIFY_REPLY: &[u8] = b"{\"broadcast_address\":\"lookupd\",\"version\":\"1.3.0\"}";

/// One side of a conversation, known before it begins.
pub struct Talk {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Ends of the commands in `bytes`, in order.
    pub boundaries: Vec<usize>,
    pub commands: Vec<Command>,
    /// All replies, if the client lives to read them.
    pub expected: Vec<u8>,
    /// Ends of the replies in it.
    replies: Vec<usize>,
    /// Where the command begins that the worker closes the connection for.
    pub fatal_from: Option<usize>,
}

/// A command and the places where it ends.
pub struct Command {
    effect: Effect,
    /// In what is sent.
    asked: usize,
    /// In what is read.
    answered: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    None,
    Identify,
    Register(usize),
    Unregister(usize),
}

impl Talk {
    /// The talk of producer `name`, with an IDENTIFY of some `padding` bytes. So many of a thousand PINGs are
    /// `floods`.
    pub fn new(name: String, padding: usize, floods: usize, rng: &mut Rng) -> Self {
        let mut talk = Self {
            name,
            bytes: Vec::new(),
            boundaries: vec![0],
            commands: Vec::new(),
            expected: Vec::new(),
            replies: Vec::new(),
            fatal_from: None,
        };
        if rng.chance(30) {
            talk.fatal(b" V1 ", b"E_BAD_PROTOCOL");
        } else {
            talk.say(b"  V1");
            talk.commands(padding, floods, rng);
        }
        talk
    }

    fn commands(&mut self, padding: usize, floods: usize, rng: &mut Rng) {
        let mut identified = false;
        let count = rng.size(60);
        for _ in 0..count {
            let topic = rng.below(TOPICS.len());
            let name = TOPICS[topic];
            let channel = rng.pick(&["", " ch", " c2#ephemeral", "  ", " ch more words"]);
            match rng.below(10) {
                0 if rng.chance(floods) => self.flood(rng.size(80_000)),
                0 => self.command("PING\r\n", Effect::None),
                1 => self.command(" PING ignored\n", Effect::None),
                _ if !identified => {
                    identified = true;
                    self.identify(padding);
                }
                2..=6 => self.command(&format!("REGISTER {name}{channel}\n"), Effect::Register(topic)),
                7 => {
                    // Without the topic's own registration, which only a bare UNREGISTER ends.
                    self.command(&format!("UNREGISTER {name} ch\n"), Effect::None);
                }
                _ => self.command(&format!("UNREGISTER {name}\n"), Effect::Unregister(topic)),
            }
        }
        if rng.chance(300) {
            self.mistake(identified, rng);
        }
    }

    fn identify(&mut self, padding: usize) {
        let (name, padding) = (&self.name, "h".repeat(padding));
        let body = format!(
            r#"{{"broadcast_address":"{name}","hostname":"{padding}","tcp_port":4150,"http_port":4151,"version":"1.3.0"}}"#
        );
        let command = identify(body.as_bytes());
        self.reply(&command, IDENTIFY_REPLY, Effect::Identify);
    }

    /// Something that ends the connection.
    fn mistake(&mut self, identified: bool, rng: &mut Rng) {
        let long = [&b"REGISTER "[..], &b"x".repeat(70_000)].concat();
        match rng.below(13) {
            0 => self.fatal(b"\n", b"E_INVALID invalid command "),
            1 => self.fatal(b"ping\n", b"E_INVALID invalid command ping"),
            10 => return self.unfinished(b"REGISTER alpha", None),
            11 if !identified => {
                return self.unfinished(b"IDENTIFY\n\0\0", Some(b"E_BAD_BODY IDENTIFY failed to read body size"));
            }
            12 if !identified => {
                return self
                    .unfinished(b"IDENTIFY\n\0\0\0\x09{\"a\"", Some(b"E_BAD_BODY IDENTIFY failed to read body"));
            }
            2 => self.fatal(&long, b"E_INVALID command line too long"),
            3 if !identified => self.fatal(b"REGISTER t\n", b"E_INVALID client must IDENTIFY"),
            4 if !identified => self.fatal(b"UNREGISTER t c\n", b"E_INVALID client must IDENTIFY"),
            5 if !identified => {
                self.fatal(b"IDENTIFY\n\xff\xff\xff\xff", b"E_BAD_BODY IDENTIFY invalid body size -1");
            }
            6 if !identified => {
                self.fatal(&identify(b"{]"), b"E_BAD_BODY IDENTIFY failed to decode JSON body");
            }
            _ if !identified => self.fatal(&identify(b"{}"), b"E_BAD_BODY IDENTIFY missing fields"),
            3 => self.fatal(b"REGISTER\n", b"E_INVALID REGISTER insufficient number of params"),
            4 => self.fatal(b"UNREGISTER  c\n", b"E_BAD_TOPIC UNREGISTER topic name '' is not valid"),
            5 => self.fatal(b"REGISTER t c$\n", b"E_BAD_CHANNEL REGISTER channel name 'c$' is not valid"),
            6 => self.fatal(b"REGISTER *\n", b"E_BAD_TOPIC REGISTER topic name '*' is not valid"),
            _ => self.fatal(b"IDENTIFY\n", b"E_INVALID cannot IDENTIFY again"),
        }
        // Thrown away by the worker, as nothing follows the end.
        let junk = rng.size(20_000);
        self.bytes.extend((0..junk).map(|nth| b"PING\n"[nth % 5]));
    }

    fn say(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.boundaries.push(self.bytes.len());
    }

    fn command(&mut self, line: &str, effect: Effect) {
        self.reply(line.as_bytes(), b"OK", effect);
    }

    fn reply(&mut self, command: &[u8], payload: &[u8], effect: Effect) {
        self.say(command);
        self.expect(payload);
        self.commands.push(Command { effect, asked: self.bytes.len(), answered: self.expected.len() });
    }

    /// More replies than a connection's output holds.
    fn flood(&mut self, pings: usize) {
        for _ in 0..pings {
            self.say(b"PING\n");
            self.expect(b"OK");
        }
        let (asked, answered) = (self.bytes.len(), self.expected.len());
        self.commands.push(Command { effect: Effect::None, asked, answered });
    }

    fn fatal(&mut self, bytes: &[u8], payload: &[u8]) {
        self.fatal_from = Some(self.bytes.len());
        self.say(bytes);
        self.expect(payload);
    }

    /// What is answered, if at all, when FIN comes in the middle of it.
    fn unfinished(&mut self, bytes: &[u8], payload: Option<&[u8]>) {
        self.fatal_from = Some(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        if let Some(payload) = payload {
            self.expect(payload);
        }
    }

    fn expect(&mut self, payload: &[u8]) {
        let len = u32::try_from(payload.len()).expect("a short reply");
        self.expected.extend(len.to_be_bytes());
        self.expected.extend_from_slice(payload);
        self.replies.push(self.expected.len());
    }

    /// How many commands are answered in the first `read` bytes of replies.
    pub fn answered(&self, read: usize) -> usize {
        self.commands.partition_point(|command| command.answered <= read)
    }

    /// How many commands are whole in the first `sent` bytes.
    pub fn asked(&self, sent: usize) -> usize {
        self.commands.partition_point(|command| command.asked <= sent)
    }

    /// The length of the replies to the first `sent` bytes.
    pub fn replies_to(&self, sent: usize) -> usize {
        // Everything is answered but nothing, and the magic.
        let said = self.boundaries.partition_point(|&end| end <= sent);
        said.checked_sub(3).map_or(0, |last| self.replies[last])
    }

    /// Whether so many bytes end with a reply.
    pub fn is_whole(&self, read: usize) -> bool {
        read == 0 || self.replies.binary_search(&read).is_ok()
    }

    /// Whether the producer is identified after its first `done` commands.
    pub fn is_identified(&self, done: usize) -> bool {
        self.commands[..done].iter().any(|command| command.effect == Effect::Identify)
    }

    /// Whether it produces the topic then.
    pub fn produces(&self, topic: usize, done: usize) -> bool {
        let effects = self.commands[..done].iter().rev().map(|command| command.effect);
        let mut about =
            effects.filter(|&effect| effect == Effect::Register(topic) || effect == Effect::Unregister(topic));
        about.next() == Some(Effect::Register(topic))
    }

    /// Whether it has ever produced the topic then.
    pub fn has_named(&self, topic: usize, done: usize) -> bool {
        self.commands[..done].iter().any(|command| command.effect == Effect::Register(topic))
    }
}

fn identify(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("a short body");
    [b"IDENTIFY\n", &len.to_be_bytes()[..], body].concat()
}
