"""What is measured: one row of the table per case."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One row: the arguments of `turnstone bench`, the figure that is taken from its report, and the ratio to reach."""

    id: str
    title: str
    args: tuple
    unit: str = "µs CPU"
    figure: str = "cpu"
    target: float | None = None  # ratio to coturn
    limit: float | None = None  # absolute
    transport: str = "udp"
    servers: tuple = ("forwarder", "coturn", "turnstone")
    against: str | None = None  # the coturn case to compare with, where it is not this one
    config: str = "open"  # which configuration of turnstone
    group: str = "relay"
    seconds: float | None = None
    same_cpu: bool = False  # server and generator on one CPU: the server cannot run while a burst is sent


RELAYING = ("coturn", "turnstone")
BURST = ("--size", "1200", "--burst", "8", "--window", "256")


def flow_count(mode: str, name: str, targets: dict) -> list:
    """A relaying mode with 160-byte packets over several numbers of clients."""
    return [
        Case(
            f"{mode}-{clients}",
            f"{name}, 160 B, {clients} allocation{'s' if clients > 1 else ''}",
            (mode, "--clients", str(clients)),
            target=target,
        )
        for clients, target in targets.items()
    ]


CASES = [
    *flow_count("client-to-peer", "client to peer", {1: 0.85, 50: 0.82, 1000: 0.72}),
    *flow_count("peer-to-client", "peer to client", {1: 0.85, 50: 0.82, 1000: 0.70}),
    Case("burst-up", "bursts of 8 × 1200 B, client to peer, 50", ("client-to-peer", *BURST), target=0.62),
    Case("burst-down", "bursts of 8 × 1200 B, peer to client, 50", ("peer-to-client", *BURST), target=0.62),
    Case(
        "coalesced-up",
        "the same, arriving coalesced, client to peer",
        ("client-to-peer", *BURST, "--gso", "--gro"),
        target=0.40,
    ),
    Case(
        "coalesced-down",
        "the same, arriving coalesced, peer to client",
        ("peer-to-client", *BURST, "--gso", "--gro"),
        target=0.40,
    ),
    Case("relay-to-relay", "relay to relay, 160 B, 50", ("relay-to-relay",), target=0.42, servers=RELAYING),
    Case("tcp-up", "TCP client, 1200 B, to peer, 50", ("client-to-peer", "--size", "1200"), transport="tcp",
         target=0.70),
    Case("tcp-down", "TCP client, 1200 B, from peer, 50", ("peer-to-client", "--size", "1200"), transport="tcp",
         target=0.70),
    Case("tls-up", "TLS client, 1200 B, to peer, 50", ("client-to-peer", "--size", "1200"), transport="tls",
         target=0.60, servers=RELAYING),
    Case("tls-down", "TLS client, 1200 B, from peer, 50", ("peer-to-client", "--size", "1200"), transport="tls",
         target=0.60, servers=RELAYING),
    Case("stun", "STUN Binding", ("stun",), target=0.65, group="requests"),
    Case("flood", "unauthenticated Allocate, answered", ("flood",), target=0.38, servers=RELAYING, group="requests"),
    Case(
        "flood-dropped",
        "unauthenticated Allocate, over budget and dropped",
        ("flood", "--rate", "250000", "--burst", "16"),
        target=0.25,
        servers=("turnstone",),
        against="flood",
        config="limited",
        group="requests",
    ),
    Case(
        "flood-memory",
        "resident memory gained by that",
        ("flood", "--rate", "250000", "--burst", "16"),
        unit="kB",
        figure="grown_kb",
        servers=("turnstone",),
        config="limited",
        group="memory",
        limit=256,
    ),
    Case("allocate", "401, Allocate, Refresh 0", ("allocate", "--window", "50"), target=0.25, servers=RELAYING,
         group="allocate"),
    Case("hold", "resident memory per idle allocation", ("hold", "--clients", "10000"), unit="kB",
         figure="held_kb", limit=1.5, servers=RELAYING, group="memory", seconds=5),
    Case("released", "resident memory kept after 10,000 were ended", ("hold", "--clients", "10000"), unit="MB",
         figure="kept_mb", limit=4, servers=RELAYING, group="memory", seconds=5),
    Case("idle", "CPU with 10,000 idle allocations", ("hold", "--clients", "10000"), unit="%",
         figure="idle_percent", limit=0.0005, servers=RELAYING, group="memory", seconds=5),
    Case("round-trip", "round trip at 8,000/s, p50", ("round-trip", "--rate", "8000"), unit="µs", figure="p50",
         target=1.0, group="latency"),
    Case("round-trip-p99", "round trip at 8,000/s, p99", ("round-trip", "--rate", "8000"), unit="µs", figure="p99",
         group="tail"),
    Case(
        "burst-64",
        "lost of a burst of 64 × 1200 B on one relay",
        ("peer-to-client", "--clients", "1", "--size", "1200", "--burst", "64", "--rate", "6400", "--sleep"),
        unit="packets",
        figure="lost_per_burst",
        limit=0,
        group="loss",
        seconds=1,
        same_cpu=True,
    ),
]
