"""A small TURN client (RFC 8656), calls that carry RTP-shaped packets, and those who misbehave."""

import base64
import hashlib
import hmac
import random
import secrets
import socket
import struct
import threading
import time

ALLOCATE, REFRESH, PERMIT, BIND = 0x0003, 0x0004, 0x0008, 0x0009
SEND_INDICATION = 0x0016
COOKIE = 0x2112A442
CHANNEL = 0x4000


def credential(secret, user, seconds=3600):
    name = f"{int(time.time()) + seconds}:{user}"
    password = base64.b64encode(hmac.digest(secret.encode(), name.encode(), "sha1")).decode()
    return name, password


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def attributes(message):
    found, at = {}, 20
    while at + 4 <= len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        found[kind] = message[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found


def message(kind, body, key=None):
    length = len(body) + (24 if key else 0)
    made = struct.pack("!HHI", kind, length, COOKIE) + secrets.token_bytes(12) + body
    return made + attribute(0x0008, hmac.digest(key, made, "sha1")) if key else made


def xored(host, port):
    address = struct.unpack("!I", socket.inet_aton(host))[0] ^ COOKIE
    return struct.pack("!BBHI", 0, 1, port ^ (COOKIE >> 16), address)


class Client:
    """One allocation over UDP, from an address of its own."""

    def __init__(self, server, name, password, source="127.0.0.1"):
        self.name, self.password, self.said = name.encode(), password.encode(), b""
        self.key, self.tries = None, 3
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.settimeout(5)
        self.socket.connect(server)

    def ask(self, method, body):
        """The response, a second time with what a 401 or a 438 said; None when there is none."""
        answer = None
        for _ in range(3):
            request = message(method, body + self.said, self.key)
            for _ in range(self.tries):
                self.socket.send(request)
                if (answer := self.answer(request[8:20])) is not None:
                    break
            if answer is None or answer[:2] != struct.pack("!H", method | 0x0110):
                return answer
            told = attributes(answer)
            realm, nonce = told.get(0x0014), told.get(0x0015)
            wrong = self.key is not None and told[0x0009][2:4] != b"\x04\x26"
            if wrong or realm is None:
                return answer
            self.key = hashlib.md5(b":".join([self.name, realm, self.password])).digest()
            self.said = attribute(0x0006, self.name) + attribute(0x0014, realm) + attribute(0x0015, nonce)
        return answer

    def answer(self, transaction):
        try:
            while True:
                got = self.socket.recv(2000)
                if got[8:20] == transaction:
                    return got
        except (TimeoutError, ConnectionRefusedError):
            return None

    def allocate(self):
        """Whether it succeeded."""
        answer = self.ask(ALLOCATE, attribute(0x0019, bytes([17, 0, 0, 0])))
        if answer is None or answer[:2] != b"\x01\x03":
            return False
        _, _, port, address = struct.unpack("!BBHI", attributes(answer)[0x0016])
        self.relayed = socket.inet_ntoa(struct.pack("!I", address ^ COOKIE)), port ^ (COOKIE >> 16)
        return True

    def bind(self, peer):
        self.ask(BIND, attribute(0x000C, struct.pack("!HH", CHANNEL, 0)) + attribute(0x0012, xored(*peer)))

    def permit(self, peer):
        return self.ask(PERMIT, attribute(0x0012, xored(*peer)))

    def indicate(self, peer, payload):
        self.socket.send(message(SEND_INDICATION, attribute(0x0012, xored(*peer)) + attribute(0x0013, payload)))

    def indicate_ipv6(self, payload):
        """To a peer of the family that the allocation does not have, whichever."""
        peer = struct.pack("!BBH", 0, 2, 9) + secrets.token_bytes(16)
        self.socket.send(message(SEND_INDICATION, attribute(0x0012, peer) + attribute(0x0013, payload)))

    def data(self, payload, channel=CHANNEL):
        self.socket.send(struct.pack("!HH", channel, len(payload)) + payload)

    def close(self):
        self.ask(REFRESH, attribute(0x000D, bytes(4)))
        self.socket.close()


class Stream:
    """What a party sends: RTP (RFC 3550), of which its network loses some and delays some."""

    def __init__(self, client, kind, clock, size, lost):
        self.client, self.kind, self.clock, self.size, self.lost = client, kind, clock, size, lost
        self.source, self.number, self.held = secrets.token_bytes(4), random.randrange(1 << 16), None
        self.began = time.monotonic()

    def packet(self, marker):
        now = int((time.monotonic() - self.began) * self.clock) & 0xFFFFFFFF
        self.number = (self.number + 1) & 0xFFFF
        head = struct.pack("!BBHI", 0x80, self.kind | marker, self.number, now)
        return head + self.source + bytes(self.size - 12)

    def send(self, marker=0, *, broken=False):
        made = self.packet(marker)
        chance = random.random()
        if broken or chance < self.lost:
            return
        if chance < self.lost + 0.005 and self.held is None:
            self.held = made
            return
        self.client.data(made)
        if self.held is not None:
            held, self.held = self.held, None
            self.client.data(held)


def drain(client):
    try:
        while True:
            client.socket.recv(2000)
    except (BlockingIOError, ConnectionRefusedError):
        pass


class Loop(threading.Thread):
    """Does the same again until it is stopped; what goes wrong in it is told at the end."""

    def __init__(self, interval):
        super().__init__(daemon=True)
        self.interval, self.over, self.error = interval, threading.Event(), None

    def run(self):
        try:
            turn, due = 0, time.monotonic()
            while not self.over.is_set():
                self.turn(turn)
                turn += 1
                due += self.interval
                self.over.wait(max(0, due - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - told by the one who stops it
            self.error = error

    def stop(self):
        self.over.set()
        self.join()
        if self.error is not None:
            raise self.error


class Calls(Loop):
    """Pairs that talk, audio at 50 packets a second and video at 25 frames, both ways."""

    def __init__(self, server, secret, pairs):
        super().__init__(0.02)
        self.clients, self.audio, self.video = [], [], []
        for pair in range(pairs):
            two = []
            for side in "ab":
                client = Client(server, *credential(secret, f"party-{pair}-{side}"), f"127.0.1.{pair + 1}")
                assert client.allocate(), "a party got no allocation"
                two.append(client)
            for client, other in (two, two[::-1]):
                client.bind(other.relayed)
                self.audio.append(Stream(client, 111, 48_000, 172, 0.004 * (pair + 1)))
                if pair % 2 == 0:
                    self.video.append(Stream(client, 96, 90_000, 1_100, 0.002 * (pair + 1)))
            self.clients += two
        for client in self.clients:
            client.socket.setblocking(False)

    def turn(self, turn):
        # Once in ten seconds the link of the first pair breaks off for a third of one.
        broken = 200 <= turn % 500 < 215
        for at, stream in enumerate(self.audio):
            stream.send(broken=broken and at < 2)
        if turn % 2 == 0:
            for at, stream in enumerate(self.video):
                for last in (0, 0, 0x80):
                    stream.send(last, broken=broken and at < 2)
        for client in self.clients:
            drain(client)


class Misbehaviour(Loop):
    """Each turn some of what a public server meets, and some that calls do when they end."""

    def __init__(self, server, stream, secret):
        super().__init__(0.25)
        self.server, self.stream, self.secret, self.silent = server, stream, secret, []
        self.prowler = self.client("prowler", "127.0.8.1")
        assert self.prowler.allocate()
        self.talking = []

    def client(self, user, source, password=None, seconds=3600):
        name, right = credential(self.secret, user, seconds)
        return Client(self.server, name, password or right, source)

    def turn(self, turn):
        # A call that is over at once, or before long.
        short = self.client(f"short-{turn}", "127.0.2.1")
        assert short.allocate(), "a call got no allocation"
        stranger = "127.0.0.1", 9
        self.prowler.indicate(stranger, b"anybody there?")
        short.permit(stranger)
        short.indicate(stranger, b"nobody")
        short.data(b"not bound", CHANNEL + 1)
        short.indicate_ipv6(b"nobody either")
        self.talking.append((turn + (0 if turn % 4 else 8 * (turn % 12)), short))
        for end, call in self.talking:
            if end <= turn:
                call.close()
        self.talking = [(end, call) for end, call in self.talking if end > turn]
        if turn % 4 == 0:
            for password, seconds in (("guessed", 3600), (None, -60)):
                failed = self.client("mallory", f"127.0.3.{turn % 200 + 1}", password, seconds)
                # Beyond prefix_failures there is no answer.
                failed.tries = 1
                failed.socket.settimeout(0.5)
                assert not failed.allocate()
                failed.socket.close()
        if turn % 8 == 1:
            many = [self.client("many", "127.0.4.1") for _ in range(3)]
            assert not all([one.allocate() for one in many]), "a limit was not reached"
            for one in many[:2]:
                one.close()
            many[2].socket.close()
        if turn % 8 == 3:
            # One that begins no handshake, which the server bears for ten seconds.
            self.silent.append(socket.create_connection(self.stream, timeout=5))
        noise = self.client("noise", "127.0.5.1")
        for garbage in (b"\xff" * 40, b"\x00\x01\x00\x00" + bytes(16)):
            noise.socket.send(garbage)
        for _ in range(40):
            noise.socket.send(message(ALLOCATE, attribute(0x0019, bytes([17, 0, 0, 0]))))
        noise.socket.close()
