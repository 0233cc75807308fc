"""Two agents of libnice that may only use relayed candidates exchange messages.

Usage: nice_pair.py '{"host": ..., "port": ..., "transport": "udp" | "tcp" | "tls", "username": ..., "password": ..., "messages": N}'

Prints one JSON object: {"gathered": [candidate lines], "received": how many messages each side got unchanged}.
"""

import ctypes
import json
import sys

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402

COMPONENT = 1
LIMIT_SECS = 20

# The bindings lack the calls that carry data.
libnice = ctypes.CDLL("libnice.so.10")
ON_DATA = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
libnice.nice_agent_attach_recv.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_void_p,
    ON_DATA,
    ctypes.c_void_p,
]
libnice.nice_agent_send.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_char_p]


class Side:
    def __init__(self, config, context, name):
        self.received = []
        self.gathered = False
        self.ready = False
        self.agent = Nice.Agent.new(context, Nice.Compatibility.RFC5245)
        self.pointer = hash(self.agent)
        self.agent.set_property("force-relay", True)
        self.agent.set_property("upnp", False)
        self.agent.set_property("controlling-mode", name == "offer")
        local = Nice.Address.new()
        local.set_from_string(config["host"])
        self.agent.add_local_address(local)
        self.stream = self.agent.add_stream(1)
        self.agent.set_stream_name(self.stream, "application")
        kind = {"udp": Nice.RelayType.UDP, "tcp": Nice.RelayType.TCP, "tls": Nice.RelayType.TLS}[config["transport"]]
        assert self.agent.set_relay_info(
            self.stream, COMPONENT, config["host"], config["port"], config["username"], config["password"], kind
        )
        self.agent.connect("candidate-gathering-done", self.on_gathered)
        self.agent.connect("component-state-changed", self.on_state)
        self.on_data = ON_DATA(self.on_data)
        libnice.nice_agent_attach_recv(self.pointer, self.stream, COMPONENT, None, self.on_data, None)
        assert self.agent.gather_candidates(self.stream)

    def on_gathered(self, _agent, _stream):
        self.gathered = True

    def on_state(self, _agent, _stream, _component, state):
        self.ready = state == Nice.ComponentState.READY

    def on_data(self, _agent, _stream, _component, length, data, _user):
        self.received.append(ctypes.string_at(data, length))

    def send(self, message):
        libnice.nice_agent_send(self.pointer, self.stream, COMPONENT, len(message), message)

    def sdp(self):
        return self.agent.generate_local_sdp()


def main():
    config = json.loads(sys.argv[1])
    context = GLib.MainContext.default()
    sides = [Side(config, context, name) for name in ("offer", "answer")]
    timed_out = []
    GLib.timeout_add_seconds(LIMIT_SECS, lambda: timed_out.append(True))

    def run_until(condition):
        while not condition() and not timed_out:
            context.iteration(True)

    run_until(lambda: all(side.gathered for side in sides))
    gathered = [line for side in sides for line in side.sdp().splitlines() if line.startswith("a=candidate")]
    result = {"gathered": gathered, "received": [0, 0]}
    if gathered:
        offer, answer = (side.sdp() for side in sides)
        sides[0].agent.parse_remote_sdp(answer)
        sides[1].agent.parse_remote_sdp(offer)
        run_until(lambda: all(side.ready for side in sides))
        messages = [bytes((number + at) % 256 for at in range(1 + 11 * number)) for number in range(config["messages"])]
        for number, message in enumerate(messages):
            for side in sides:
                side.send(message)
            run_until(lambda: all(len(side.received) > number for side in sides))
        result["received"] = [sum(got == sent for got, sent in zip(side.received, messages)) for side in sides]
    print(json.dumps(result))


main()
