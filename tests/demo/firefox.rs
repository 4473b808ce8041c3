//! Firefox on the page, driven by WebDriver BiDi, as much of it as opens a page and asks it.
//! <https://www.w3.org/TR/webdriver-bidi/>

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::lab::process::Process;
use crate::lab::{Lab, Party};
use crate::window::Ask;

/// A running browser with one window.
pub(crate) struct Firefox {
    socket: WebSocket<TcpStream>,
    commands: u64,
    context: Value,
    process: Process,
}

impl Firefox {
    /// Starts it in `party`'s namespace.
    pub(crate) fn start(lab: &Lab, party: Party) -> Self {
        let namespace = lab.party(party);
        let profile = lab.file("firefox");
        fs::create_dir_all(&profile).expect("the lab's directory is writable");
        let mut preferences = String::new();
        for (name, value) in [
            ("media.autoplay.default", "0"),
            ("network.captive-portal-service.enabled", "false"),
            ("network.connectivity-service.enabled", "false"),
        ] {
            preferences += &format!("user_pref(\"{name}\", {value});\n");
        }
        fs::write(profile.join("user.js"), preferences).expect("the profile is writable");
        let mut command = namespace.command("firefox-esr");
        command
            .env("HOME", &profile)
            .args(["--headless", "--no-remote", "--remote-debugging-port=0"])
            .arg("--profile")
            .arg(&profile);
        let mut process = Process::spawn("firefox", command, lab.directory());
        let address =
            process.expect_line("WebDriver BiDi listening on ws://", Duration::from_secs(60));
        let address: SocketAddr = address.parse().expect("an address stands behind ws://");
        let stream = namespace
            .enter(|| TcpStream::connect(address))
            .expect("the browser listens where it says");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket takes a deadline");
        let (socket, _) = tungstenite::client(format!("ws://{address}/session"), stream)
            .unwrap_or_else(|error| panic!("no WebSocket to the browser: {error}"));
        let mut firefox = Self {
            socket,
            commands: 0,
            context: Value::Null,
            process,
        };
        firefox.command("session.new", json!({ "capabilities": {} }));
        let tree = firefox.command("browsingContext.getTree", json!({}));
        firefox.context = tree["contexts"][0]["context"].clone();
        firefox
    }

    /// Runs `script` before those of each page that is opened from now on.
    pub(crate) fn before_each_page(&mut self, script: &str) {
        let function = format!("() => {{ {script} }}");
        let preload = json!({ "functionDeclaration": function });
        self.command("script.addPreloadScript", preload);
    }

    pub(crate) fn open(&mut self, url: &str) {
        let target = json!({ "context": self.context, "url": url, "wait": "complete" });
        self.command("browsingContext.navigate", target);
    }

    /// Ends it.
    pub(crate) fn quit(mut self) {
        self.process.stop(Signal::TERM);
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

impl Ask for Firefox {
    fn ask(&mut self, expression: &str) -> Value {
        // Its own form of values is another one than JSON.
        let asked = json!({
            "expression": format!("Promise.resolve({expression}).then((value) => JSON.stringify(value))"),
            "target": { "context": self.context },
            "awaitPromise": true,
        });
        let answer = self.command("script.evaluate", asked);
        assert_eq!(answer["type"], "success", "{expression}: {answer}");
        let text = answer["result"]["value"].as_str().unwrap_or("null");
        serde_json::from_str(text).expect("the page writes JSON")
    }
}
