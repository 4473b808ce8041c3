//! WebDriver BiDi, as much of it as opens a page: one session of one browser.
//! <https://www.w3.org/TR/webdriver-bidi/>

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::lab::namespace::Namespace;

/// A session; the browser goes on without it.
pub(crate) struct Session {
    socket: WebSocket<TcpStream>,
    commands: u64,
}

impl Session {
    /// Begins a session with the browser that listens at `address` inside `namespace`.
    pub(crate) fn begin(namespace: &Namespace, address: SocketAddr) -> Self {
        let stream = namespace
            .enter(|| TcpStream::connect(address))
            .expect("the browser listens where it says");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket takes a deadline");
        let (socket, _) = tungstenite::client(format!("ws://{address}/session"), stream)
            .unwrap_or_else(|error| panic!("no WebSocket to the browser: {error}"));
        let mut session = Self {
            socket,
            commands: 0,
        };
        session.command("session.new", json!({ "capabilities": {} }));
        session
    }

    /// Goes to `url` in the window that is there, and waits until the page is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let tree = self.command("browsingContext.getTree", json!({}));
        let window = &tree["contexts"][0]["context"];
        let target = json!({ "context": window, "url": url, "wait": "complete" });
        self.command("browsingContext.navigate", target);
    }

    /// Gives one command; its result.
    fn command(&mut self, method: &str, params: Value) -> Value {
        self.commands += 1;
        let said = json!({ "id": self.commands, "method": method, "params": params });
        self.socket
            .send(Message::text(said.to_string()))
            .unwrap_or_else(|error| panic!("{method} is not sent: {error}"));
        loop {
            let message = self
                .socket
                .read()
                .unwrap_or_else(|error| panic!("{method} is not answered: {error}"));
            // Other kinds keep the connection alive.
            let Message::Text(text) = message else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).expect("BiDi is JSON");
            if answer["id"] == self.commands {
                assert_eq!(answer["type"], "success", "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}
