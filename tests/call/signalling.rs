//! The signalling server of the call: hands out the page and each party's
//! task, carries messages from one to the other, collects results.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::capture::SIGNALLING_PORT;
use crate::lab::{Lab, Party, SERVICE};

#[derive(Default)]
struct Desk {
    tasks: HashMap<&'static str, Value>,
    inboxes: HashMap<&'static str, Vec<Value>>,
    /// All that each party ever told the other.
    told: HashMap<&'static str, Vec<Value>>,
    results: HashMap<&'static str, Value>,
    /// What both pages run.
    script: &'static str,
}

/// A running server; its threads end with the test process.
pub(crate) struct Signalling {
    desk: Arc<Mutex<Desk>>,
}

impl Signalling {
    /// Serves on the relay's address, which both parties reach.
    pub(crate) fn start(lab: &Lab, tasks: [(Party, Value); 2]) -> Self {
        Self::start_with(lab, tasks, include_str!("page.js"))
    }

    /// The same, for pages that run `script`.
    pub(crate) fn start_with(lab: &Lab, tasks: [(Party, Value); 2], script: &'static str) -> Self {
        let address = SocketAddr::from((SERVICE.v4, SIGNALLING_PORT));
        let listener = lab
            .relay
            .enter(|| TcpListener::bind(address))
            .expect("the signalling port is free");
        let tasks = tasks.map(|(party, task)| (party.name(), task)).into();
        let desk = Arc::new(Mutex::new(Desk {
            tasks,
            script,
            ..Desk::default()
        }));
        let served = Arc::clone(&desk);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let desk = Arc::clone(&served);
                // A browser that hangs up early has lost interest, no more.
                thread::spawn(move || drop(serve(&stream, &desk)));
            }
        });
        Self { desk }
    }

    /// Where `party`'s browser goes.
    pub(crate) fn page(party: Party) -> String {
        format!("{}/?me={}", Self::origin(), party.name())
    }

    pub(crate) fn origin() -> String {
        format!("http://{}:{SIGNALLING_PORT}", SERVICE.v4)
    }

    /// All that `party` told the other: descriptions and candidates, as JSON.
    pub(crate) fn told(&self, party: Party) -> String {
        let desk = self.desk.lock().unwrap();
        Value::from(desk.told.get(party.name()).cloned()).to_string()
    }

    /// Waits for `party`'s result; `None` when the time is up.
    pub(crate) fn result(&self, party: Party, deadline: Instant) -> Option<Value> {
        loop {
            let result = self.desk.lock().unwrap().results.get(party.name()).cloned();
            if result.is_some() || Instant::now() > deadline {
                return result;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Answers one request: `<method> <path>?party=<name>`, or a file of the page.
fn serve(mut stream: &TcpStream, desk: &Mutex<Desk>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let body = read_body(&mut reader)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let party = Party::BOTH
        .into_iter()
        .find(|party| query.ends_with(party.name()));
    let (content_type, content) = match (method, path, party) {
        ("GET", "/", _) => ("text/html", include_str!("page.html").to_owned()),
        ("GET", "/page.js", _) => {
            let script = desk.lock().unwrap().script;
            ("text/javascript", script.to_owned())
        }
        ("GET" | "POST", _, Some(party)) => {
            let said = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let answer = desk.lock().unwrap().answer(path, party, said);
            ("application/json", answer.to_string())
        }
        _ => ("text/plain", String::new()),
    };
    let length = content.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{content}"
    )
}

fn read_body(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

impl Desk {
    fn answer(&mut self, path: &str, party: Party, said: Value) -> Value {
        match path {
            "/task" => return self.tasks[party.name()].clone(),
            "/signals" => {
                return std::mem::take(self.inboxes.entry(party.name()).or_default()).into();
            }
            "/signal" => {
                let told = self.told.entry(party.name()).or_default();
                told.push(said.clone());
                let inbox = self.inboxes.entry(party.other().name()).or_default();
                inbox.push(said);
            }
            "/result" => drop(self.results.insert(party.name(), said)),
            _ => {}
        }
        Value::Null
    }
}
