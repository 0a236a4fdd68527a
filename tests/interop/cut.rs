//! A connection on its way to a server, which a test can cut.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes connections on to a server. Dropping it cuts them.
pub struct Passage {
    pub address: SocketAddr,
    /// Both ends of every connection; `None` while it is cut.
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Passage {
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let open = Arc::new(Mutex::new(Some(Vec::new())));
        let passing = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Some(ends) = passing.lock().expect("no holder panics").as_mut()
                    && let Ok(server) = TcpStream::connect(server)
                {
                    for (from, to) in [(&client, &server), (&server, &client)] {
                        let [from, to] = [from, to].map(|end| end.try_clone().expect("a descriptor"));
                        ends.push(from.try_clone().expect("a descriptor"));
                        thread::spawn(|| pass(from, to));
                    }
                }
            }
        });
        Self { address, open }
    }

    /// Ends all connections, and each new one at once.
    pub fn cut(&self) {
        for end in self.open.lock().expect("no holder panics").take().into_iter().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        *self.open.lock().expect("no holder panics") = Some(Vec::new());
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.cut();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
