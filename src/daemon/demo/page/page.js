// The page: two call windows that speak to each other in memory, or one that speaks to another tab
// by the server's mailboxes.

import { Party } from "./call.js";
import { Panel, isLoopback } from "./panel.js";
import { letSound, testPicture } from "./picture.js";

const PARTIES = [
  { id: "a", name: "Alice", hue: 265, pitch: 262 },
  { id: "b", name: "Bob", hue: 165, pitch: 330 },
];
const MODES = ["direct", "relay"];
/** Milliseconds from one time to the next. */
const MEASURE = 1000;
const POLL = 300;

const byId = (id) => document.querySelector(`#${id}`);
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function post(path, message) {
  const body = JSON.stringify(message ?? null);
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

/** A credential for `party`, and what its connection is told in each mode. */
async function configured(party, mode) {
  const answer = await (await post(`/credentials/${party.id}`)).json();
  const { iceServers, iceTransportPolicy, relayedAddresses } = answer;
  if (mode === "relay") return { relays: relayedAddresses, iceServers, iceTransportPolicy };
  // As direct calls do: an address of one's own is asked of a STUN server, this relay.
  const udp = iceServers.flatMap(({ urls }) => urls).find((url) => url.endsWith("=udp"));
  const urls = udp.replace(/^turn:/, "stun:").replace(/\?.*$/, "");
  return { relays: relayedAddresses, iceServers: [{ urls }], iceTransportPolicy: "all" };
}

/** One window with what is behind it. */
class Seat {
  constructor(party, other) {
    this.party = party;
    this.panel = new Panel(party, other);
    this.connection = new Party({
      send: (message) => this.send(message),
      hear: (stream) => this.panel.show(stream),
    });
    this.relays = [];
    this.use(testPicture(party));
  }

  /** Sends this stream from now on. */
  use(stream) {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = stream;
    this.panel.mirror(stream);
    return this.connection.replace(stream);
  }

  async begin(call, mode, offers) {
    const { relays, ...configuration } = await configured(this.party, mode);
    if (call !== current) return;
    this.relays = relays;
    this.connection.begin({ call, configuration, stream: this.stream, offers });
  }

  /** Leaves the call that is on, and what was learned in it. */
  leave() {
    this.connection.end();
    this.panel.clear();
  }

  async measure() {
    const measured = await this.connection.measure();
    if (!measured) return;
    const { mode } = document.body.dataset;
    const camera = byId("camera").getAttribute("aria-pressed") === "true";
    this.panel.measure(measured);
    this.panel.tell(this.connection.learned, { mode, relays: this.relays, camera });
    // Firefox does so.
    if (measured.state === "failed" && mode === "relay" && this.relays.every(isLoopback)) {
      byId("sum").textContent =
        "This browser takes no relay on loopback: use another one, or start taciturn demo with " +
        "--listen and an address of this machine.";
    }
  }
}

/** The call that is on; what belongs to another one is dropped. */
let current;

/** Leaves the call that is on for one in another mode, and shows that. */
function turn(seats, mode) {
  for (const seat of seats) seat.leave();
  document.body.dataset.mode = mode;
  for (const one of MODES) byId(`way-${one}`).setAttribute("aria-checked", one === mode);
  byId("sum").textContent =
    mode === "relay"
      ? "Both browsers know the relay, and the relay alone."
      : "Each browser tells the other where it is.";
  history.replaceState(null, "", `#${mode}`);
}

function fault(error) {
  byId("sum").textContent = `The relay does not answer: is taciturn demo running? (${error.message})`;
}

/** Both windows on this page. */
class Together {
  constructor() {
    const [a, b] = PARTIES;
    this.seats = [new Seat(a, b), new Seat(b, a)];
    const [left, right] = this.seats;
    // As over a wire: what arrives is a copy.
    left.send = (message) => right.connection.receive(structuredClone(message));
    right.send = (message) => left.connection.receive(structuredClone(message));
  }

  async call(mode) {
    const call = crypto.randomUUID();
    current = call;
    turn(this.seats, mode);
    const [left, right] = this.seats;
    await right.begin(call, mode, false);
    await left.begin(call, mode, true);
  }
}

/** One window; the other one is another tab's. A calls, B asks A to. */
class Apart {
  constructor(id) {
    const me = PARTIES.find((party) => party.id === id);
    this.other = PARTIES.find((party) => party.id !== id);
    this.seat = new Seat(me, this.other);
    this.seats = [this.seat];
    this.seat.send = (message) => this.say(message);
  }

  say(message) {
    // In order, one after the other.
    this.said = (this.said ?? Promise.resolve())
      .then(() => post(`/signals/${this.other.id}`, message))
      .catch(fault);
  }

  async call(mode) {
    if (this.seat.party.id === "b") {
      turn(this.seats, mode);
      return this.say({ ask: mode });
    }
    const call = crypto.randomUUID();
    current = call;
    turn(this.seats, mode);
    this.say({ begin: call, mode });
    await this.seat.begin(call, mode, true);
  }

  async hear(message) {
    if (message.ask) {
      if (this.seat.party.id === "a") await this.call(message.ask);
    } else if (message.begin) {
      current = message.begin;
      turn(this.seats, message.mode);
      await this.seat.begin(message.begin, message.mode, false);
    } else {
      this.seat.connection.receive(message);
    }
  }

  async listen() {
    const mailbox = `/signals/${this.seat.party.id}`;
    // What was said before is about a call that is over.
    await fetch(mailbox);
    await this.call(asked());
    while (true) {
      try {
        for (const message of await (await fetch(mailbox)).json()) await this.hear(message);
      } catch (error) {
        fault(error);
      }
      await sleep(POLL);
    }
  }
}

/** The mode that the address names. */
const asked = () => (location.hash === "#direct" ? "direct" : "relay");

async function camera(table) {
  const button = byId("camera");
  if (button.getAttribute("aria-pressed") === "true") {
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Use the camera";
    for (const seat of table.seats) await seat.use(testPicture(seat.party));
    return;
  }
  try {
    const video = { width: 640, height: 360, frameRate: 25 };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video });
    for (const seat of table.seats) await seat.use(stream.clone());
    for (const track of stream.getTracks()) track.stop();
    button.setAttribute("aria-pressed", "true");
    button.textContent = "Use the test picture";
  } catch {
    button.textContent = "No camera: test picture";
  }
  // What a browser tells of its addresses changes with the permission.
  await table.call(document.body.dataset.mode);
}

function sound(table) {
  const button = byId("sound");
  const isOn = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", isOn);
  button.textContent = isOn ? "Sound off" : "Sound on";
  letSound();
  for (const seat of table.seats) seat.panel.sound(isOn);
}

const id = new URLSearchParams(location.search).get("party");
const table = PARTIES.some((party) => party.id === id) ? new Apart(id) : new Together();
byId("panels").append(...table.seats.map((seat) => seat.panel.root));
document.body.classList.toggle("apart", table.seats.length === 1);
for (const mode of MODES) {
  byId(`way-${mode}`).addEventListener("click", () => table.call(mode).catch(fault));
}
byId("camera").addEventListener("click", () => camera(table).catch(fault));
byId("sound").addEventListener("click", () => sound(table));
addEventListener("click", letSound, { once: true });
(table.listen?.() ?? table.call(asked())).catch(fault);

while (true) {
  for (const seat of table.seats) await seat.measure();
  await sleep(MEASURE);
}
