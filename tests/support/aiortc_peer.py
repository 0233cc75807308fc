"""One WebRTC peer (aiortc) that carries bytes over a data channel and says how it was connected.

Usage: aiortc_peer.py '{"role": "offer" | "answer", "ice_servers": [...], "policy": "relay" | "all", "bytes": N}'

It talks in lines of JSON. The offering side prints its description, reads the answer, sends N bytes and prints what the other
side's SHA-256 of them was; the answering side reads the offer and prints its answer. Both print a line with "state" when the
connection is up or has failed. They end when stdin ends.
"""

import asyncio
import hashlib
import json
import sys

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)

CHUNK = 16 * 1024


def say(**what):
    print(json.dumps(what), flush=True)


def payload(length):
    """Bytes that do not repeat, so that a lost or doubled piece shows."""
    out = bytearray()
    counter = 0
    while len(out) < length:
        out += hashlib.sha256(counter.to_bytes(8, "big")).digest()
        counter += 1
    return bytes(out[:length])


def selected_pair(peer):
    # aiortc has no public way to ask which pair was nominated.
    connection = peer.sctp.transport.transport._connection
    pair = connection._nominated.get(1)
    return pair and [pair.local_candidate.type, pair.remote_candidate.type]


async def read_line(reader):
    line = await reader.readline()
    return json.loads(line) if line else None


async def describe(peer, reader, role):
    """Exchanges the descriptions; candidates are inside, for aiortc gathers before it describes."""
    if role == "offer":
        await peer.setLocalDescription(await peer.createOffer())
        say(type="offer", sdp=peer.localDescription.sdp)
        answer = await read_line(reader)
        await peer.setRemoteDescription(RTCSessionDescription(**answer))
    else:
        offer = await read_line(reader)
        await peer.setRemoteDescription(RTCSessionDescription(**offer))
        await peer.setLocalDescription(await peer.createAnswer())
        say(type="answer", sdp=peer.localDescription.sdp)


async def main():
    config = json.loads(sys.argv[1])
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    peer = RTCPeerConnection(
        RTCConfiguration(
            iceServers=[RTCIceServer(**server) for server in config["ice_servers"]],
            iceTransportPolicy=RTCIceTransportPolicy(config["policy"]),
        )
    )

    @peer.on("connectionstatechange")
    def state_changed():
        if peer.connectionState in ("connected", "failed"):
            pair = selected_pair(peer) if peer.connectionState == "connected" else None
            say(state=peer.connectionState, pair=pair)

    if config["role"] == "offer":
        channel = peer.createDataChannel("bytes")
        data = payload(config["bytes"])

        @channel.on("open")
        def opened():
            channel.send(str(len(data)))
            asyncio.ensure_future(send())

        async def send():
            for start in range(0, len(data), CHUNK):
                while channel.bufferedAmount > 4 * CHUNK:
                    await asyncio.sleep(0.001)
                channel.send(data[start : start + CHUNK])

        @channel.on("message")
        def digest_came(digest):
            say(sent=hashlib.sha256(data).hexdigest(), received=digest)

    else:

        @peer.on("datachannel")
        def channel_came(channel):
            digest = hashlib.sha256()
            expected = None
            seen = 0

            @channel.on("message")
            def message(piece):
                nonlocal expected, seen
                if expected is None:
                    expected = int(piece)
                    return
                digest.update(piece)
                seen += len(piece)
                if seen >= expected:
                    channel.send(digest.hexdigest())

    await describe(peer, reader, config["role"])
    await read_line(reader)
    await peer.close()


asyncio.run(main())
