"""One party of an exchange over TURN, driven by lines on standard input.

Prints OFFER with how the other party reaches it, reads the other's, and prints
READY once something has arrived. At GO it sends its datagrams, then prints
RECEIVED with how many different ones of the other party arrived.
"""

import asyncio
import json
import sys

import aioice
from aioice import turn
from aioice.ice import TransportPolicy

MODE, NAME, HOST, PORT, USERNAME, PASSWORD, COUNT = sys.argv[1:]
SERVER, COUNT = (HOST, int(PORT)), int(COUNT)


def say(*words):
    print(*words, flush=True)


async def hear():
    loop = asyncio.get_running_loop()
    return (await loop.run_in_executor(None, sys.stdin.readline)).strip()


class Inbox(asyncio.DatagramProtocol):
    """What has arrived; a datagram that came twice counts once."""

    def __init__(self):
        self.greeted = asyncio.Event()
        self.datagrams = set()

    def datagram_received(self, data, addr):
        self.greeted.set()
        if data.startswith(b"datagram"):
            self.datagrams.add(data)


class TurnClient:
    """An allocation, and a channel to the other party's relayed address."""

    async def open(self, inbox):
        self.endpoint, _ = await turn.create_turn_endpoint(
            lambda: inbox, server_addr=SERVER, username=USERNAME, password=PASSWORD
        )
        say("OFFER", json.dumps(self.endpoint.get_extra_info("sockname")))
        self.peer = tuple(json.loads(await hear()))

    async def send(self, data):
        self.endpoint.sendto(data, self.peer)

    async def close(self):
        self.endpoint.close()
        await asyncio.sleep(0.5)


class IceAgent:
    """An ICE agent that has relayed candidates only."""

    async def open(self, inbox):
        self.agent = aioice.Connection(
            ice_controlling=NAME == "alice",
            turn_server=SERVER,
            turn_username=USERNAME,
            turn_password=PASSWORD,
            transport_policy=TransportPolicy.RELAY,
        )
        await self.agent.gather_candidates()
        candidates = self.agent.local_candidates
        assert candidates and all(c.type == "relay" for c in candidates), candidates
        say("OFFER", json.dumps([
            self.agent.local_username,
            self.agent.local_password,
            [c.to_sdp() for c in candidates],
        ]))
        username, password, lines = json.loads(await hear())
        self.agent.remote_username, self.agent.remote_password = username, password
        for line in lines:
            await self.agent.add_remote_candidate(aioice.Candidate.from_sdp(line))
        await self.agent.add_remote_candidate(None)
        await self.agent.connect()
        self.reader = asyncio.ensure_future(self.read(inbox))

    async def read(self, inbox):
        while True:
            inbox.datagram_received(await self.agent.recv(), None)

    async def send(self, data):
        await self.agent.send(data)

    async def close(self):
        self.reader.cancel()
        await self.agent.close()


async def greet(party):
    while True:
        await party.send(b"hello")
        await asyncio.sleep(0.05)


async def main():
    inbox = Inbox()
    party = {"turn": TurnClient, "ice": IceAgent}[MODE]()
    await party.open(inbox)
    # What comes before both sides have their permissions may be lost.
    greeting = asyncio.ensure_future(greet(party))
    await asyncio.wait_for(inbox.greeted.wait(), 20)
    say("READY")
    await hear()
    greeting.cancel()
    for number in range(COUNT):
        await party.send(b"datagram %d" % number)
        await asyncio.sleep(0.005)
    for _ in range(50):
        if len(inbox.datagrams) == COUNT:
            break
        await asyncio.sleep(0.1)
    say("RECEIVED", len(inbox.datagrams))
    # The other party may still be waiting for its last ones.
    await asyncio.sleep(1)
    await party.close()


asyncio.run(main())
