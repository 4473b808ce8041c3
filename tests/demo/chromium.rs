//! Chromium with fake devices, driven by its DevTools protocol, as much of it as opens a page, asks
//! it and looks at it. <https://chromedevtools.github.io/devtools-protocol/>

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::lab::namespace::Namespace;
use crate::lab::process::Process;
use crate::lab::{Lab, Party};
use crate::window::Ask;

/// How the pictures of the page are taken, and its tests run.
const SIZE: (u32, u32) = (1280, 800);

/// A running browser.
pub(crate) struct Chromium<'lab> {
    namespace: &'lab Namespace,
    address: SocketAddr,
    devtools: Devtools,
    process: Process,
}

impl<'lab> Chromium<'lab> {
    /// Starts it in `party`'s namespace; pages of `origin` may use its fake camera.
    pub(crate) fn start(lab: &'lab Lab, party: Party, origin: &str) -> Self {
        let namespace = lab.party(party);
        let home = lab.file("chromium");
        let mut command = namespace.command("chromium");
        command
            .env("HOME", &home)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--use-fake-device-for-media-stream",
                "--autoplay-policy=no-user-gesture-required",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", home.display()));
        let mut process = Process::spawn("chromium", command, lab.directory());
        let url = process.expect_line("DevTools listening on ws://", Duration::from_secs(60));
        let (address, path) = url
            .split_once('/')
            .expect("a path stands behind the address");
        let address = address.parse().expect("an address stands behind ws://");
        let mut devtools = Devtools::connect(namespace, address, path);
        devtools.command(
            "Browser.grantPermissions",
            json!({ "origin": origin, "permissions": ["videoCapture", "audioCapture"] }),
        );
        Self {
            namespace,
            address,
            devtools,
            process,
        }
    }

    /// A window of its own on an empty page.
    pub(crate) fn tab(&mut self) -> Tab {
        let empty = json!({ "url": "about:blank", "newWindow": true });
        let made = self.devtools.command("Target.createTarget", empty);
        let target = made["targetId"].as_str().expect("a target has an id");
        let path = format!("devtools/page/{target}");
        let mut devtools = Devtools::connect(self.namespace, self.address, &path);
        for domain in ["Page", "Runtime", "Log"] {
            devtools.command(&format!("{domain}.enable"), json!({}));
        }
        let (width, height) = SIZE;
        devtools.command(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        );
        Tab(devtools)
    }

    /// Ends it.
    pub(crate) fn quit(mut self) {
        self.process.stop(Signal::TERM);
    }
}

/// A page of it.
pub(crate) struct Tab(Devtools);

impl Tab {
    /// Runs `script` before those of each page that is opened from now on.
    pub(crate) fn before_each_page(&mut self, script: &str) {
        let source = json!({ "source": script });
        self.0
            .command("Page.addScriptToEvaluateOnNewDocument", source);
    }

    pub(crate) fn open(&mut self, url: &str) {
        let answer = self.0.command("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    pub(crate) fn click(&mut self, selector: &str) {
        self.ask(&format!("document.querySelector(\"{selector}\").click()"));
    }

    /// The page as it looks, in PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let shot = self
            .0
            .command("Page.captureScreenshot", json!({ "format": "png" }));
        let data = shot["data"].as_str().expect("a picture is text");
        STANDARD.decode(data).expect("which is base64")
    }

    /// What the page's scripts threw, and what the browser refused them.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // Whatever came before this answer has been read then.
        self.ask("0");
        std::mem::take(&mut self.0.complaints)
    }
}

impl Ask for Tab {
    fn ask(&mut self, expression: &str) -> Value {
        let asked = json!({
            "expression": expression,
            "returnByValue": true,
            "awaitPromise": true,
            "userGesture": true,
        });
        let mut answer = self.0.command("Runtime.evaluate", asked);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].take()
    }
}

/// One connection to the browser.
struct Devtools {
    socket: WebSocket<TcpStream>,
    commands: u64,
    complaints: Vec<String>,
}

impl Devtools {
    fn connect(namespace: &Namespace, address: SocketAddr, path: &str) -> Self {
        let stream = namespace
            .enter(|| TcpStream::connect(address))
            .expect("the browser listens where it says");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a socket takes a deadline");
        let (socket, _) = tungstenite::client(format!("ws://{address}/{path}"), stream)
            .unwrap_or_else(|error| panic!("no WebSocket to the browser: {error}"));
        Self {
            socket,
            commands: 0,
            complaints: Vec::new(),
        }
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
            let mut answer: Value = serde_json::from_str(&text).expect("DevTools speaks JSON");
            if answer["id"] == self.commands {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            let is_complaint = answer["method"] == "Runtime.exceptionThrown"
                || answer["method"] == "Log.entryAdded"
                    && answer["params"]["entry"]["level"] == "error";
            if is_complaint {
                self.complaints.push(answer["params"].to_string());
            }
        }
    }
}
