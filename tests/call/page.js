// One party of a call. It is told by the signalling server what to do, meets
// the other party there, and reports what it saw.
"use strict";

const me = new URLSearchParams(location.search).get("me");
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const get = async (path) => (await fetch(`${path}?party=${me}`)).json();
const post = (path, value) =>
  fetch(`${path}?party=${me}`, { method: "POST", body: JSON.stringify(value) });

async function negotiate(connection, isOfferer) {
  connection.onicecandidate = ({ candidate }) => {
    if (candidate) post("/signal", { candidate: candidate.toJSON() });
  };
  if (isOfferer) {
    await connection.setLocalDescription();
    await post("/signal", { description: connection.localDescription });
  }
  const early = [];
  while (true) {
    for (const { description, candidate } of await get("/signals")) {
      if (description) {
        await connection.setRemoteDescription(description);
        if (!isOfferer) {
          await connection.setLocalDescription();
          await post("/signal", { description: connection.localDescription });
        }
        while (early.length) await connection.addIceCandidate(early.shift());
      } else if (connection.remoteDescription) {
        await connection.addIceCandidate(candidate);
      } else {
        early.push(candidate);
      }
    }
    await sleep(100);
  }
}

// Fewer ciphertext bytes, fewer of them that look like an address by chance.
async function limitBitrate(connection) {
  for (const sender of connection.getSenders()) {
    const parameters = sender.getParameters();
    for (const encoding of parameters.encodings) encoding.maxBitrate = 200_000;
    await sender.setParameters(parameters);
  }
}

// A connection whose only candidate pairs so far were refused by the relay is "failed" until the
// other party's next candidate arrives; only one that stays so has failed.
async function connected(connection) {
  let failed = 0;
  while (connection.connectionState !== "connected") {
    failed = connection.connectionState === "failed" ? failed + 1 : 0;
    if (failed === 100) throw new Error("the connection failed");
    await sleep(50);
  }
}

async function observed(connection) {
  const stats = await connection.getStats();
  const all = [...stats.values()];
  const inbound = (kind) => all.find((s) => s.type === "inbound-rtp" && s.kind === kind) ?? {};
  const transport = all.find((s) => s.type === "transport") ?? {};
  // Firefox marks the pair itself.
  const pair = stats.get(transport.selectedCandidatePairId) ?? all.find((s) => s.selected) ?? {};
  const local = stats.get(pair.localCandidateId) ?? {};
  const remote = stats.get(pair.remoteCandidateId) ?? {};
  return {
    framesDecoded: inbound("video").framesDecoded ?? 0,
    audioPacketsReceived: inbound("audio").packetsReceived ?? 0,
    local: local.candidateType ?? "none",
    remote: remote.candidateType ?? "none",
    remoteAddress: remote.address ?? "none",
    via: local.relayProtocol ?? "none",
    browser: navigator.userAgent,
  };
}

async function call() {
  const { configuration, seconds, isOfferer } = await get("/task");
  const connection = new RTCPeerConnection(configuration);
  const media = await navigator.mediaDevices.getUserMedia({
    audio: true,
    video: { width: 320, height: 240, frameRate: 15 },
  });
  for (const track of media.getTracks()) connection.addTrack(track, media);
  const negotiation = negotiate(connection, isOfferer);
  await Promise.race([negotiation, connected(connection)]);
  await limitBitrate(connection);
  await Promise.race([negotiation, sleep(seconds * 1000)]);
  return observed(connection);
}

call().then(
  (observation) => post("/result", observation),
  (error) => post("/result", { error: String(error) }),
);
