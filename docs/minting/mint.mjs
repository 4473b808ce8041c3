// A time-limited TURN credential, made without asking the server.
//
// Usage: node mint.mjs SECRET_FILE USER TTL_SECONDS

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { argv } from "node:process";

/** The credential of `user`, good for `ttl` seconds. */
export function mint(secret, user, ttl) {
  const username = `${Math.floor(Date.now() / 1000) + ttl}:${user}`;
  const credential = createHmac("sha1", secret).update(username).digest("base64");
  return { username, credential };
}

const [path, user, ttl] = argv.slice(2);
const secret = readFileSync(path, "utf8").replace(/[\r\n]+$/, "");
console.log(JSON.stringify(mint(secret, user, Number(ttl))));
