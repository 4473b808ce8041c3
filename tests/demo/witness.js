// Notes what each connection of the page is given, and each remote candidate that it reports, for
// as long as the connection is open.
"use strict";

const given = new Map();

function note(connection, what) {
  given.set(connection, [...(given.get(connection) ?? []), JSON.stringify(what)]);
}

window.witnessed = () =>
  [...given]
    .filter(([connection]) => connection.connectionState !== "closed")
    .flatMap(([, notes]) => notes)
    .join("\n");

for (const name of ["setRemoteDescription", "addIceCandidate"]) {
  const original = RTCPeerConnection.prototype[name];
  RTCPeerConnection.prototype[name] = function (what, ...rest) {
    note(this, what);
    return original.call(this, what, ...rest);
  };
}

const stats = RTCPeerConnection.prototype.getStats;
RTCPeerConnection.prototype.getStats = async function (...rest) {
  const report = await stats.apply(this, rest);
  for (const one of report.values()) if (one.type === "remote-candidate") note(this, one);
  return report;
};
