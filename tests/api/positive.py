"""What schemathesis cannot make up: names of what there is.

A credential to revoke has to be minted first, a ban to be laid, an allocation to be made by a client.
Some requests whose names would be random ones are given such names here, so that each operation is
seen to succeed, and what is answered to whom is written down for `.ci/schemathesis` to judge.
"""

import atexit
import hashlib
import hmac
import json
import os
import random
import secrets
import socket
import struct
import urllib.error
import urllib.request
from collections import Counter

import schemathesis

API = os.environ["TACITURN_API"]
KEY = os.environ["TACITURN_KEY"]
ANSWERS = os.environ["TACITURN_ANSWERS"]

answers = Counter()
clients = []


def ask(method, path, body=None):
    request = urllib.request.Request(
        API + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=15) as answer:
        return json.load(answer)


def minted():
    return ask("POST", "/v1/credentials", {"user": secrets.token_hex(8)})["iceServers"][0]


def ban():
    wanted = {"subject": secrets.token_hex(16), "ttl": 600}
    return ask("POST", "/v1/bans", wanted)["bans"][0]["id"]


def allocation():
    """The id of a live one, which is made if there is none."""
    while not (found := ask("GET", "/v1/allocations?limit=1")["allocations"]):
        allocate(minted())
    return found[0]["id"]


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def attributes(message):
    found, at = {}, 20
    while at < len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        found[kind] = message[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found


def allocate(server):
    """RFC 8656: Allocate, the challenge, and Allocate with a credential."""
    host, port = server["urls"][0].split("?")[0].removeprefix("turn:").rsplit(":", 1)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect((host, int(port)))

    def exchange(body, key=None):
        length = len(body) + (24 if key else 0)
        request = struct.pack("!HHI", 0x0003, length, 0x2112A442) + secrets.token_bytes(12) + body
        if key:
            request += attribute(0x0008, hmac.digest(key, request, "sha1"))
        client.send(request)
        return client.recv(2000)

    udp = attribute(0x0019, bytes([17, 0, 0, 0]))
    challenge = attributes(exchange(udp))
    name, realm, nonce = server["username"].encode(), challenge[0x0014], challenge[0x0015]
    password = server["credential"].encode()
    key = hashlib.md5(b":".join([name, realm, password])).digest()
    said = attribute(0x0006, name) + attribute(0x0014, realm) + attribute(0x0015, nonce)
    answer = exchange(udp + said, key)
    assert answer[:2] == b"\x01\x03", answer.hex()
    # Its port is nobody else's as long as this lives.
    clients.append(client)


NAMES = {
    "/v1/credentials/{username}": lambda: {"username": minted()["username"]},
    "/v1/turn/keys/{id}/credentials/{username}/revoke": lambda: {
        "id": "key",
        "username": minted()["username"],
    },
    "/v1/bans/{id}": lambda: {"id": ban()},
    "/v1/allocations/{id}": lambda: {"id": allocation()},
}


def is_positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(context, case, kwargs):
    names = NAMES.get(case.operation.path)
    if names and is_positive(case) and random.random() < 0.5:
        case.path_parameters = names()


@schemathesis.hook
def after_call(context, case, response):
    if is_positive(case):
        answers[f"{case.operation.label} {response.status_code}"] += 1


# A reader of numbers that is off by one in the last digit has another number than a whole one here.
# The crate's own tests are built with a library that turns such a reader off; this daemon is not.
def whole_numbers_are_read_to_the_last_digit():
    try:
        ask("POST", "/v1/turn/keys/key/credentials/generate", {"ttl": 1984016887846279.0})
    except urllib.error.HTTPError as answer:
        # It is read, and longer than a credential may last; 400 would be the fraction.
        assert answer.code == 422, answer.read()
    else:
        raise AssertionError("a credential for longer than there may be one")


whole_numbers_are_read_to_the_last_digit()


@atexit.register
def leave():
    with open(ANSWERS, "w", encoding="utf-8") as file:
        json.dump(answers, file, indent=1, sort_keys=True)
