"""A time-limited TURN credential, made without asking the server.

Usage: mint.py SECRET_FILE USER TTL_SECONDS
"""

import base64
import hashlib
import hmac
import json
import sys
import time


def mint(secret: str, user: str, ttl: int) -> dict[str, str]:
    """The credential of `user`, good for `ttl` seconds."""
    username = f"{int(time.time()) + ttl}:{user}"
    mac = hmac.new(secret.encode(), username.encode(), hashlib.sha1)
    return {"username": username, "credential": base64.b64encode(mac.digest()).decode()}


if __name__ == "__main__":
    path, user, ttl = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        print(json.dumps(mint(file.read().strip("\r\n"), user, int(ttl))))
