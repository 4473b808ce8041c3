// One party of a call: its connection, what it was told of the other, and what it measures.
// It speaks to the other party by `send` and is spoken to by `receive`, whatever lies between.

/** What a line of ICE says: `candidate:1 1 udp 2113937151 192.0.2.10 54321 typ host …`. */
function parsed(line) {
  const words = line.replace(/^a=/, "").replace(/^candidate:/, "").trim().split(/\s+/);
  if (words.length < 8) return undefined;
  const [address, port] = [words[4], Number(words[5])];
  const after = (word) => (words.includes(word, 6) ? words[words.indexOf(word, 6) + 1] : undefined);
  const [related, relatedPort] = [after("raddr"), Number(after("rport"))];
  // Firefox names the relayed address again, and to a masked client the relay does.
  const tellsMore = related && !isNowhere(related) && !(related === address && relatedPort === port);
  return { address, port, type: after("typ"), related: tellsMore ? related : undefined };
}

/** The addresses that stand for none. */
const isNowhere = (address) => ["0.0.0.0", "::"].includes(address);

/** What a session description says of its party's addresses. */
function described(sdp) {
  const lines = sdp.split(/\r?\n/);
  const candidates = lines.filter((line) => line.startsWith("a=candidate:")).map(parsed);
  // Where media goes unless ICE finds a way; an address of a candidate, or none.
  const defaults = lines
    .filter((line) => line.startsWith("c=IN "))
    .map((line) => ({ address: line.split(" ")[2], type: "default" }));
  return [...candidates, ...defaults];
}

export class Party {
  #connection;
  #call;
  #early = [];
  #turn = Promise.resolve();
  #before;

  /** `hear` is given the other party's stream. */
  constructor({ send, hear }) {
    this.send = send;
    this.hear = hear;
    this.clear();
  }

  clear() {
    /** What this browser was told or found out of the other's addresses, by address and type. */
    this.learned = new Map();
    this.#early = [];
    this.#before = undefined;
  }

  get state() {
    return this.#connection?.connectionState ?? "new";
  }

  /** Begins the call called `call`, over what is there before. */
  begin({ call, configuration, stream, offers }) {
    this.end();
    this.#call = call;
    const connection = new RTCPeerConnection(configuration);
    this.#connection = connection;
    for (const track of stream.getTracks()) connection.addTrack(track, stream);
    connection.ontrack = ({ streams }) => this.hear(streams[0]);
    connection.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) this.send({ call, candidate: candidate.toJSON() });
    };
    if (offers) this.#next((connection) => this.#describe(connection));
  }

  /** Leaves the call, and what was learned in it. */
  end() {
    this.#connection?.close();
    this.#connection = undefined;
    // What waits for a closed connection waits for ever.
    this.#turn = Promise.resolve();
    this.clear();
  }

  /** Sends other tracks of the same kinds from now on. */
  async replace(stream) {
    for (const sender of this.#connection?.getSenders() ?? []) {
      const track = stream.getTracks().find(({ kind }) => kind === sender.track?.kind);
      if (track) await sender.replaceTrack(track);
    }
  }

  /** Takes what the other party says. */
  receive(message) {
    if (message.call !== this.#call) return;
    this.#next((connection) => this.#take(connection, message));
  }

  /** One thing after the other, in the order in which it was said. */
  #next(work) {
    const connection = this.#connection;
    const isOn = () => connection === this.#connection;
    this.#turn = this.#turn
      .then(() => isOn() && work(connection))
      .catch((error) => isOn() && console.error(String(error)));
  }

  async #describe(connection) {
    await connection.setLocalDescription();
    if (connection !== this.#connection) return;
    this.send({ call: this.#call, description: connection.localDescription.toJSON() });
  }

  async #take(connection, { description, candidate }) {
    if (description) {
      for (const found of described(description.sdp)) this.#learn(found);
      await connection.setRemoteDescription(description);
      if (connection !== this.#connection) return;
      for (const early of this.#early.splice(0)) await connection.addIceCandidate(early);
      if (description.type === "offer") await this.#describe(connection);
    } else if (candidate) {
      this.#learn(parsed(candidate.candidate));
      if (connection.remoteDescription) await connection.addIceCandidate(candidate);
      else this.#early.push(candidate);
    }
  }

  #learn(found) {
    if (!found?.address || isNowhere(found.address)) return;
    if (found.related) this.#learn({ address: found.related, type: "related" });
    const isKnown = [...this.learned.values()].some(({ address }) => address === found.address);
    if (found.type === "default" && isKnown) return;
    const key = `${found.address} ${found.type}`;
    const known = this.learned.get(key) ?? { ...found, ports: new Set() };
    // Port 9 stands for none in TCP candidates (RFC 6544).
    if (found.port && found.port !== 9) known.ports.add(found.port);
    this.learned.set(key, known);
  }

  /** What the browser measured since the last time, and what it found out of addresses. */
  async measure() {
    const connection = this.#connection;
    if (!connection) return undefined;
    const stats = await connection.getStats();
    if (connection !== this.#connection) return undefined;
    const all = [...stats.values()];
    for (const remote of all.filter(({ type }) => type === "remote-candidate")) {
      const { address, port, candidateType } = remote;
      this.#learn({ address, port, type: candidateType });
    }
    const inbound = all.filter(({ type }) => type === "inbound-rtp");
    const transport = all.find(({ type }) => type === "transport");
    // Firefox marks the pair itself.
    const pair = stats.get(transport?.selectedCandidatePairId) ?? all.find((one) => one.selected);
    const sum = (key) => inbound.reduce((total, one) => total + (one[key] ?? 0), 0);
    const now = {
      time: performance.now(),
      bytes: sum("bytesReceived") + sum("headerBytesReceived"),
      packets: sum("packetsReceived"),
      lost: sum("packetsLost"),
    };
    const before = this.#before ?? now;
    this.#before = now;
    const video = inbound.find(({ kind }) => kind === "video") ?? {};
    const [packets, lost] = [now.packets - before.packets, Math.max(0, now.lost - before.lost)];
    return {
      state: this.state,
      from: pair && stats.get(pair.remoteCandidateId),
      by: pair && stats.get(pair.localCandidateId),
      bitsPerSecond: (8000 * (now.bytes - before.bytes)) / (now.time - before.time) || 0,
      loss: packets + lost > 0 ? lost / (packets + lost) : undefined,
      roundTrip: pair?.currentRoundTripTime,
      frames: video.framesPerSecond ?? 0,
      size: video.frameWidth ? `${video.frameWidth}×${video.frameHeight}` : undefined,
    };
  }
}
