// One call window: what a party sees and hears, and what its browser learned of the other's address.

/** What each kind of address is, in a few words. */
const KINDS = {
  host: (other) => `an address of ${other}’s own machine`,
  srflx: (other, address) =>
    `where ${other}’s packets came from, as a STUN server saw it: ` +
    (isLoopback(address)
      ? "that server is on this machine. On the Internet this is a public address"
      : "often a public address"),
  prflx: (other) => `where packets of ${other}’s came from`,
  related: (other) => `${other}’s own address, told beside another one`,
  default: (other) => `where ${other} says that media goes`,
  relay: () => "the relay’s address; the port is this call’s alone",
  name: (other) =>
    `a stand-in: ${other}’s browser hides its addresses behind such a name until a camera or ` +
    `microphone is allowed`,
};

const HINT =
  "Without a camera a browser keeps addresses back. Allow it, as in a real call, and see what else " +
  "is told.";

/** Whether an address is one of the machine itself. */
export const isLoopback = (address) => address.startsWith("127.") || address === "::1";
const isName = (address) => address.endsWith(".local");

const rate = (bits) =>
  bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`;
const share = (loss) => `${(100 * loss).toFixed(1)} %`;
const trip = (seconds) => (seconds < 0.001 ? "< 1 ms" : `${Math.round(1000 * seconds)} ms`);
const at = (address, port) => (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);

/** How bad it is to have learned this: "safe", "name" or "own". */
function danger({ address, type }, relays) {
  if (isName(address)) return "name";
  // By a check that came before the candidate did, a relayed address is peer-reflexive at first.
  const isRelayed = ["relay", "prflx", "default"].includes(type) && relays.includes(address);
  return isRelayed ? "safe" : "own";
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

export class Panel {
  /** The window of `party`, who is in a call with `other`. */
  constructor(party, other) {
    const template = document.querySelector("#panel");
    this.root = template.content.firstElementChild.cloneNode(true);
    this.root.dataset.party = party.id;
    this.other = other;
    const find = (selector) => this.root.querySelector(selector);
    find("h2").textContent = `${party.name}’s window`;
    find("h3").textContent = `What ${party.name}’s browser learned of ${other.name}’s address`;
    this.video = find("video.other");
    this.own = find("video.own");
    this.state = find(".state");
    this.verdict = find(".verdict b");
    this.reason = find(".verdict span");
    this.list = find("ul");
    this.numbers = Object.fromEntries(
      [...this.root.querySelectorAll("[data-number]")].map((one) => [one.dataset.number, one]),
    );
  }

  /** Shows the party to itself. */
  mirror(stream) {
    this.own.srcObject = stream;
  }

  /** Shows the other party; a stream that is there goes on. */
  show(stream) {
    if (this.video.srcObject !== stream) this.video.srcObject = stream;
  }

  sound(isOn) {
    this.video.muted = !isOn;
  }

  /** Shows that there is no call. */
  clear() {
    this.tell(new Map(), { mode: "", relays: [], camera: false });
    this.measure({ state: "new" });
  }

  /** Shows what was learned; `relays` are the addresses that the relay gives, and `camera` says
   *  whether one is used. */
  tell(learned, { mode, relays, camera }) {
    const found = [...learned.values()].map((one) => ({ ...one, danger: danger(one, relays) }));
    const order = ["own", "name", "safe"];
    found.sort((a, b) => order.indexOf(a.danger) - order.indexOf(b.danger));
    this.#judge(found, mode);
    const rows = found.map((one) => this.#row(one));
    const shows = ({ address, type }) => type === "host" && !isName(address);
    if (mode === "direct" && !camera && rows.length > 0 && !found.some(shows)) {
      rows.push(element("li", "hint", HINT));
    }
    this.list.replaceChildren(...rows);
  }

  #row({ address, type, ports, danger }) {
    const row = element("li", danger, "");
    const kind = isName(address) ? "name" : type;
    const label = { name: "mDNS", default: "c=", related: "raddr" }[kind] ?? kind;
    const explained = KINDS[kind]?.(this.other.name, address) ?? "";
    const counted = ports.size === 1 ? `port ${[...ports][0]}` : `ports ${[...ports].join(", ")}`;
    row.append(
      element("code", "address", kind === "name" ? `${address.slice(0, 8)}….local` : address),
      element("span", "kind", label),
      element("small", "", explained),
    );
    row.title = [address, explained, ports.size > 0 ? counted : ""].filter(Boolean).join("; ");
    return row;
  }

  #judge(found, mode) {
    const has = (danger) => found.some((one) => one.danger === danger);
    const other = this.other.name;
    const [verdict, headline, reason] =
      found.length === 0
        ? ["none", "Nothing yet.", ""]
        : has("own") && mode === "relay"
          ? ["bad", `${other}’s own address!`, "This must not be: report it."]
          : has("own")
            ? ["bad", `${other}’s own address.`, "A direct call cannot do without it."]
            : has("name")
              ? ["fair", "A stand-in name, this time.", ""]
              : ["good", "Only the relay’s address.", `It says nothing of where ${other} is.`];
    this.root.dataset.verdict = verdict;
    this.verdict.textContent = headline;
    this.reason.textContent = reason;
  }

  /** Shows what was measured. */
  measure(measured) {
    const { state, from, by, bitsPerSecond, loss, roundTrip, frames, size } = measured;
    this.root.dataset.state = state;
    const isUp = state === "connected";
    const words = { failed: "no way found", disconnected: "interrupted", new: "waiting" };
    const relayed = by?.candidateType === "relay";
    this.state.textContent = isUp ? (relayed ? "relayed" : "direct") : (words[state] ?? "connecting");
    // A browser keeps to itself what a name stands for, though its packets go there.
    const source = from && (from.address ? at(from.address, from.port) : "behind that name");
    this.numbers.from.textContent = (isUp && source?.replace(/^(.{8}).*(\.local.*)$/, "$1…$2")) || "–";
    this.numbers.rate.textContent = isUp ? rate(bitsPerSecond) : "–";
    this.numbers.loss.textContent = isUp && loss !== undefined ? share(loss) : "–";
    this.numbers.trip.textContent = isUp && roundTrip !== undefined ? trip(roundTrip) : "–";
    this.numbers.picture.textContent = isUp && size ? `${size}, ${Math.round(frames)}/s` : "–";
  }
}
