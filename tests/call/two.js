// One party of two calls at once, which reports when either of them last carried sound.
"use strict";

const me = new URLSearchParams(location.search).get("me");
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const get = async (path) => (await fetch(`${path}?party=${me}`)).json();
const post = (path, value) =>
  fetch(`${path}?party=${me}`, { method: "POST", body: JSON.stringify(value) });

// What the other party says of each call.
const inboxes = [[], []];
async function receive() {
  while (true) {
    for (const message of await get("/signals")) inboxes[message.call].push(message);
    await sleep(50);
  }
}

async function negotiate(connection, isOfferer, call) {
  connection.onicecandidate = ({ candidate }) => {
    if (candidate) post("/signal", { call, candidate: candidate.toJSON() });
  };
  const describe = async () => {
    await connection.setLocalDescription();
    await post("/signal", { call, description: connection.localDescription });
  };
  if (isOfferer) await describe();
  const early = [];
  while (true) {
    for (const { description, candidate } of inboxes[call].splice(0)) {
      if (description) {
        await connection.setRemoteDescription(description);
        if (!isOfferer) await describe();
        while (early.length) await connection.addIceCandidate(early.shift());
      } else if (connection.remoteDescription) {
        await connection.addIceCandidate(candidate);
      } else {
        early.push(candidate);
      }
    }
    await sleep(50);
  }
}

async function connected(connection) {
  while (connection.connectionState !== "connected") await sleep(50);
}

async function received(connection) {
  const stats = [...(await connection.getStats()).values()];
  return stats.find((s) => s.type === "inbound-rtp")?.packetsReceived ?? 0;
}

async function calls() {
  const { configurations, isOfferer, seconds } = await get("/task");
  const media = await navigator.mediaDevices.getUserMedia({ audio: true });
  const connections = configurations.map((configuration) => new RTCPeerConnection(configuration));
  const failures = [receive()];
  for (const [call, connection] of connections.entries()) {
    for (const track of media.getTracks()) connection.addTrack(track, media);
    failures.push(negotiate(connection, isOfferer, call));
  }
  await Promise.race([...failures, Promise.all(connections.map(connected))]);
  await post("/result", { connected: true });
  const heard = connections.map(() => 0);
  const counts = connections.map(() => 0);
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    for (const [call, connection] of connections.entries()) {
      const count = await received(connection);
      if (count > counts[call]) heard[call] = Date.now();
      counts[call] = count;
    }
    await sleep(20);
  }
  return { heard, counts, ended: Date.now() };
}

calls().then(
  (observation) => post("/result", observation),
  (error) => post("/result", { error: String(error) }),
);
