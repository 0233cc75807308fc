"""Turns the reports of all rounds into docs/benchmarks.md and its plots."""

import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

import plot
from cases import CASES

NAMES = ("forwarder", "coturn", "turnstone")


def write(results: dict, out: Path):
    figures = {case.id: row(case, results["reports"]) for case in CASES if case.id in results["reports"]}
    directory = out.with_suffix("")
    directory.mkdir(parents=True, exist_ok=True)
    plots = draw(figures, directory)
    profiles = directory / "profile.json"
    profiles = json.loads(profiles.read_text()) if profiles.exists() else {}
    out.write_text(text(results, figures, profiles, plots, directory.name))


def row(case, reports: dict) -> dict:
    """Medians, spread and ratio of one case."""
    runs = reports[case.id]
    values = {}
    for name, rounds in runs.items():
        taken = [figure(case.figure, report) for report in rounds]
        values[name] = [value for value in taken if value is not None]
    answer = {
        "case": case,
        "median": {name: statistics.median(v) for name, v in values.items() if v},
        "range": {name: (min(v), max(v)) for name, v in values.items() if v},
        "errors": sorted({f"{name}: {report['error']}" for name, rounds in runs.items() for report in rounds
                          if "error" in report}),
        "runs": runs,
        "ratio": None,
    }
    base = values.get("coturn", [])
    if case.against and case.against in reports:
        base = [figure(case.figure, report) for report in reports[case.against].get("coturn", [])]
        base = [value for value in base if value is not None]
        if base:
            answer["median"]["coturn"] = statistics.median(base)
    ours = values.get("turnstone", [])
    if base and ours and len(base) == len(ours) and all(base):
        # The two of one round were measured next to each other; the median of their ratios is steadier than a ratio
        # of medians.
        answer["ratio"] = statistics.median(our / their for our, their in zip(ours, base))
    return answer


def figure(name: str, report: dict):
    """The figure of a report that a case is about; None where it was not measured."""
    if "error" in report:
        return None
    server, hold = report.get("server") or {}, report.get("hold") or {}
    match name:
        case "cpu":
            return server.get("cpu_us_per_unit")
        case "p50" | "p99":
            return (report.get("latency_us") or {}).get(name)
        case "grown_kb":
            return max(server.get("resident_bytes_grown", 0), 0) / 1e3
        case "held_kb":
            return hold["resident_bytes_per_allocation"] / 1e3
        case "kept_mb":
            return max(hold["resident_bytes_released"] - hold["resident_bytes_at_start"], 0) / 1e6
        case "idle_percent":
            return hold["idle_cpu_percent"]
        case "lost_per_burst":
            return report["lost"] * report["burst"] / max(report["sent"], 1)


def draw(figures: dict, directory: Path) -> list:
    """Writes the plots; returns (file name, alternative text)."""
    groups = [
        ("relay", "cpu-per-packet.svg", "Server CPU time per relayed packet", "microseconds of CPU per packet"),
        ("requests", "cpu-per-request.svg", "Server CPU time per request", "microseconds of CPU per request"),
        ("allocate", "cpu-per-allocation.svg", "Server CPU time of one allocation, from 401 to Refresh 0",
         "microseconds of CPU per cycle"),
        ("latency", "latency.svg", "Round trip through the server, 8,000 a second, median", "microseconds"),
    ]
    written = []
    for group, file, title, axis in groups:
        members = [f for f in figures.values() if f["case"].group == group and f["median"]]
        if not members:
            continue
        rows = [(f["case"].title, f["median"]) for f in members]
        marks = {f["case"].title: f["case"].target * f["median"]["coturn"] for f in members
                 if f["case"].target and "coturn" in f["median"]}
        names = [name for name in NAMES if any(name in f["median"] for f in members)]
        (directory / file).write_text(plot.bars(title, axis, rows, names, marks))
        written.append((file, title))
    memory = [f for f in figures.values() if f["case"].figure in ("held_kb", "kept_mb") and f["median"]]
    for member in memory:
        file = f"memory-{member['case'].id}.svg"
        unit = "kilobytes" if member["case"].unit == "kB" else "megabytes"
        names = [name for name in NAMES if name in member["median"]]
        title = member["case"].title
        (directory / file).write_text(
            plot.bars(title[0].upper() + title[1:], unit, [("", member["median"])], names))
        written.append((file, title))
    return written


def text(results: dict, figures: dict, profiles: dict, plots: list, directory: str) -> str:
    machine = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        f"Measured on {results['date']} by `benches/compare/run`: {results['rounds']} rounds, "
        f"{results['seconds']:g} seconds for each figure. The servers were measured one after the other in every round, "
        "and each round began with another one. The figures are medians; "
        "the ratio is the median of the rounds' ratios of turnstone to coturn. Lower is better everywhere.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items()),
        "",
        "## What was measured",
        "",
        "| case | unit | forwarder | coturn | turnstone | ratio | to reach | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += [table_row(answer) for answer in figures.values()]
    lines += ["", *explanations(figures)]
    if results.get("cores"):
        lines += cores(results["cores"])
    lines += unreached(figures, profiles)
    for file, title in plots:
        lines += [f"![{title}]({directory}/{file})", ""]
    lines += [
        "## Throughput and loss",
        "",
        "A window of packets is kept in flight, so that the server is never idle unless the load generator is slower. "
        "Where the server's CPU is not near 100 %, the generator was the limit, and the packets per second are its own.",
        "",
        "| case | server | units/s | lost | p50 µs | p99 µs | server CPU | generator busy |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *throughput(figures),
        "",
        "## Method",
        "",
        METHOD,
    ]
    return "\n".join(lines).rstrip() + "\n"


METHOD = """\
- Server and load generator (`turnstone bench`) share a machine, and nothing else: a network namespace with only a
  loopback interface. The server is pinned to one CPU and has one worker (coturn: `relay-threads=1`), the generator to
  another CPU.
- CPU time is that of the server's whole process, user and kernel, read in nanoseconds at both ends of the measured time
  and divided by the packets that arrived in between. On loopback this includes the delivery of what the server sends
  into the receiver's socket buffer, for all servers alike, and not the driver and hardware of a real network card.
- The generator is all clients and all peers. It checks every packet: order, content, source address, channel. It looks
  for packets without ever sleeping, so that no server pays for waking it.
- Each client has a socket and an allocation of its own, with one channel. All share one peer socket. The next packet, or
  burst, goes to the next client.
- Bursts: the generator sends the packets of a burst one by one, and reads them one by one. "Arriving coalesced": it sends
  each burst as one segmented datagram (UDP GSO) and reads with UDP GRO, as two hosts with offloading network cards see
  each other.
- The forwarder is the floor of a plain program: epoll, one `recvfrom` and one `sendto` for each datagram, one `read` for
  what a connection has and one `write` for each datagram to it, one socket for each flow, no checks and no cryptography
  (`turnstone bench --forwarder`).
- Unauthenticated requests are answered without limit by both servers, except in "over budget", where turnstone has its
  default limit; that row's ratio is to coturn's answered requests, because coturn has no limit. Its CPU time is per
  request that reached the socket.
- Logging: both servers log at their defaults, to /dev/null.

To repeat it: `benches/compare/run` (root or user namespaces, Debian's `coturn` package, Python 3). All reports are in
`results.json` beside the plots."""


def table_row(answer: dict) -> str:
    case = answer["case"]
    cells = [shown(answer, name) for name in NAMES]
    if case.against:
        cells[1] += "¹" if "coturn" in answer["median"] else ""
    ratio = f"{answer['ratio']:.2f}" if answer["ratio"] is not None else ""
    if case.target is not None:
        goal, met = f"≤ {case.target:.2f}", answer["ratio"] is not None and answer["ratio"] <= case.target
        judged = answer["ratio"] is not None
    elif case.limit is not None:
        value = answer["median"].get("turnstone")
        goal, judged = f"≤ {case.limit:g} {case.unit}", value is not None
        met = judged and value <= case.limit
    else:
        goal, met, judged = "", False, False
    verdict = ("reached" if met else "**not reached**") if judged else ""
    return f"| {case.title} | {case.unit} | {' | '.join(cells)} | {ratio} | {goal} | {verdict} |"


# What stands in the way where a target is not reached.
SEND_EACH = (
    "Every packet leaves by a system call of its own, because the one before it went out of another socket or to another "
    "address; io_uring in its place gained nothing (ARCHITECTURE.md)."
)
STREAM_EACH = (
    "Every packet is a TCP segment of its own with its delivery and acknowledgement. coturn writes a connection only in the "
    "next turn of its loop, by when more than two packets wait at this load, and so the slower server sends fewer, larger "
    "segments; turnstone writes when it has read what was there, and has less waiting."
)
HALF_A_BURST = (
    "The packets of a burst come one by one, and the server, which looks at once, finds about four of the eight: they leave "
    "by one segmented send. Receivers with UDP GRO make no difference."
)
REASONS = {
    "client-to-peer-50": SEND_EACH,
    "client-to-peer-1000": SEND_EACH,
    "peer-to-client-50": SEND_EACH + " Every relay has a socket of its own to be read, mostly for one packet.",
    "peer-to-client-1000": SEND_EACH + " Every relay has a socket of its own to be read, mostly for one packet.",
    "burst-up": HALF_A_BURST,
    "burst-down": HALF_A_BURST,
    "allocate": "Two thirds of a cycle are the kernel's: three datagrams each way, a socket made, set up and closed.",
    "tcp-up": "Every connection has little to be read at a time, and every packet is sent by itself.",
    "tcp-down": STREAM_EACH,
    "tls-up": "Every connection has little to be read at a time, and every packet is sent by itself.",
    "tls-down": STREAM_EACH,
    "stun": "Every answer goes to another address, by a system call of its own.",
}


def unreached(figures: dict, profiles: dict) -> list:
    """Where the time goes in the cases whose target was not reached, and what the plain forwarder needs."""
    lines = []
    for answer in figures.values():
        case, ratio = answer["case"], answer["ratio"]
        if case.target is None or ratio is None or ratio <= case.target:
            continue
        parts = []
        median = answer["median"]
        floor = figures.get(case.id.replace("tls-", "tcp-"), {}).get("median", {}).get("forwarder")
        if case.transport == "tls" and floor and median.get("coturn"):
            parts.append(
                f"the forwarder needs {floor / median['coturn']:.2f} of coturn over TCP, without any cryptography"
            )
        elif median.get("forwarder"):
            parts.append(
                f"turnstone needs {median['turnstone'] / median['forwarder']:.2f} of what the forwarder needs, and the "
                f"forwarder {median['forwarder'] / median['coturn']:.2f} of coturn"
            )
        share = profiles.get(case.id, {}).get("turnstone")
        if share:
            sending = share["send"] + share["deliver"]
            own = share["user"] + share["crypto"]
            parts.append(
                f"{sending:.0f} % of its time is the kernel's for sending ({share['deliver']:.0f} % in delivering on the "
                f"receiver's behalf), {share['receive']:.0f} % for receiving, {own:.0f} % its own code"
                + (f" ({share['crypto']:.0f} % cryptography)" if share["crypto"] >= 0.5 else "")
            )
        parts = "; ".join(parts)
        lines.append(f"- **{case.title}** ({ratio:.2f} for {case.target:.2f}): {parts}. {REASONS.get(case.id, '')}".rstrip())
    if not lines:
        return []
    return [
        "## Where a target is not reached",
        "",
        "The targets are ratios to coturn that were set from another machine of this kind. Shares of time are by perf(1) "
        "(`benches/compare/profile`, in `profile.json`).",
        "",
        *lines,
        "",
    ]


def shown(answer: dict, name: str) -> str:
    if name not in answer["median"]:
        return ""
    return plot.number(answer["median"][name])


def explanations(figures: dict) -> list:
    lines = []
    if any(answer["case"].against for answer in figures.values()):
        lines += ["¹ coturn's figure for the same requests, answered.", ""]
    errors = sorted({error for answer in figures.values() for error in answer["errors"]})
    if errors:
        lines += ["Not everything could be measured:", "", *(f"- {error}" for error in errors), ""]
    return lines


def throughput(figures: dict) -> list:
    lines = []
    for answer in figures.values():
        if answer["case"].group in ("memory", "loss") or answer["case"].figure == "p99":
            continue
        for name in NAMES:
            runs = [run for run in answer["runs"].get(name, []) if "error" not in run and run.get("server")]
            if not runs:
                continue
            mid = lambda take: statistics.median(take(run) for run in runs)
            quantile = lambda q: plot.number(mid(lambda run: run["latency_us"][q])) if runs[0]["latency_us"] else ""
            lines.append(
                f"| {answer['case'].title} | {name} | {mid(lambda run: run['per_second']):,.0f} "
                f"| {mid(lambda run: run['loss_percent']):.3g} % | {quantile('p50')} | {quantile('p99')} "
                f"| {mid(lambda run: run['server']['cpu_percent']):.0f} % "
                f"| {mid(lambda run: run['generator']['busy_percent']):.0f} % |"
            )
    return lines


def cores(rounds: list) -> list:
    def cost(measured):
        return measured and figure("cpu", measured["report"])

    usable = [r for r in rounds if all(cost(r.get(name)) for name in ("1", "2", "2-shared"))]
    if not usable:
        return []
    worth = statistics.median(2 * cost(r["1"]) / cost(r["2"]) for r in usable)
    share = statistics.median(r["2"]["share_of_busiest"] for r in usable)
    shared = statistics.median(2 * cost(r["1"]) / cost(r["2-shared"]) for r in usable)
    return [
        f"Two workers carry **{worth:.2f}** times what one carries (to reach: 1.9), by the CPU time of each packet: one "
        "worker with 60,000 packets a second of 200 clients, two with 120,000, so that each has as much to do as the one "
        f"had; the busier of the two had {100 * share:.0f} % of the work. Where the two share the 60,000, the figure is "
        f"{shared:.2f}: each wakes up as often for half of the packets, which has nothing to do with what they share.",
        "",
    ]


def machine(turnstone: Path, in_netns: bool) -> dict:
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} CPUs{', virtual machine' if is_virtual() else ''}",
        "kernel": f"{platform.system()} {platform.release()}",
        "turnstone": version([turnstone, "--version"]),
        "coturn": version(["turnserver", "--version"]),
        "network": "loopback in a network namespace" if in_netns else "the machine's loopback",
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def is_virtual() -> bool:
    return " hypervisor " in Path("/proc/cpuinfo").read_text().replace("\n", " ")


def version(command: list) -> str:
    try:
        output = subprocess.run([str(part) for part in command], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return "not installed"
    return (output.strip().splitlines() or ["unknown"])[-1]
