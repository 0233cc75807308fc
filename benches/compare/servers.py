"""Starts and stops the servers that are compared, each alone and pinned to one CPU."""

import os
import secrets
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PORT = 3478
TLS_PORT = 5349
USER = "bench"
REALM = "example.org"
# Below the ephemeral ports, so that no peer of the load generator has an address that a server may take for a relay.
RELAY_PORTS = (20000, 32000)


class Servers:
    """A directory with the servers' configuration, and how to start each."""

    def __init__(self, turnstone: Path, cpu: int | None):
        self.turnstone = turnstone
        self.cpu = cpu
        self.directory = tempfile.TemporaryDirectory(prefix="turnstone-compare-")
        self.path = Path(self.directory.name)
        self.password = secrets.token_hex(16)
        self._write()

    def start(self, name: str, config: str, cpu="own"):
        """Starts a server and waits until it answers; returns its process."""
        command = {
            "turnstone": [self.turnstone, "serve", "--dev", "--config", self.path / f"{config}.toml"],
            "coturn": ["turnserver", "-c", self.path / "coturn.conf"],
            "forwarder": [self.turnstone, "bench", "--forwarder", f"127.0.0.1:{PORT}"],
        }[name]
        cpu = self.cpu if cpu == "own" else cpu
        if cpu is not None:
            command = ["taskset", "-c", str(cpu), *command]
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.path,
        )
        if not answers(process):
            process.kill()
            process.wait()
            raise RuntimeError(f"{name} does not answer: run it by hand with {' '.join(str(p) for p in command)}")
        return process

    def stop(self, process):
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _write(self):
        first, last = RELAY_PORTS
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
            cwd=self.path, check=True, capture_output=True,
        )
        for config, limit in {"open": '"unlimited"', "limited": "100"}.items():
            for workers in (1, 2):
                name = config if workers == 1 else f"{config}-{workers}"
                self._secret(f"{name}.toml", f"""\
workers = {workers}
[[listen]]
address = "127.0.0.1:{PORT}"
transport = ["udp", "tcp"]
[[listen]]
address = "127.0.0.1:{TLS_PORT}"
transport = "tls"
[tls]
certificate = "cert.pem"
key = "key.pem"
[relay]
ipv4 = "127.0.0.1"
ports = "{first}-{last}"
[auth]
realm = "{REALM}"
[[auth.users]]
name = "{USER}"
password = "{self.password}"
[quota]
allocations-per-user = "unlimited"
allocations-per-user-per-second = "unlimited"
[limits]
unauthenticated-replies-per-second = {limit}
[streams]
connections-per-ip-max = "unlimited"
""")
        self._secret("coturn.conf", f"""\
listening-ip=127.0.0.1
listening-port={PORT}
tls-listening-port={TLS_PORT}
relay-ip=127.0.0.1
min-port={first}
max-port={last}
relay-threads=1
lt-cred-mech
user={USER}:{self.password}
realm={REALM}
cert={self.path}/cert.pem
pkey={self.path}/key.pem
allow-loopback-peers
no-cli
no-dtls
log-file=/dev/null
no-stdout-log
pidfile={self.path}/coturn.pid
""")

    def _secret(self, name: str, text: str):
        path = self.path / name
        path.write_text(text)
        os.chmod(path, 0o600)
        os.chmod(self.path / "key.pem", 0o600)


def answers(process) -> bool:
    """Sends Binding requests until one is answered."""
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + secrets.token_bytes(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.1)
        probe.connect(("127.0.0.1", PORT))
        for _ in range(100):
            if process.poll() is not None:
                return False
            try:
                probe.send(request)
                if probe.recv(1500)[4:20] == request[4:20]:
                    return True
            except (TimeoutError, ConnectionError):
                time.sleep(0.02)
    return False
