"""A network namespace of our own, so that nothing else on the machine is measured and nothing else is disturbed."""

import fcntl
import os
import shutil
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x1 | 0x40


def enter(priority: bool) -> bool:
    """Starts this program again inside a new namespace; where that is not possible, says so and returns False."""
    if os.environ.get("COMPARE_IN_NETNS"):
        loopback_up()
        return True
    if shutil.which("unshare") is None:
        print("no unshare(1): measuring on the machine's own loopback interface", file=sys.stderr)
        return False
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    # The scheduler weighs sessions against each other before it looks at niceness (autogroup).
    session = ["setsid", "--wait"] if priority else []
    command = [*session, "unshare", *flags, sys.executable, *sys.argv]
    os.execvpe(command[0], command, {**os.environ, "COMPARE_IN_NETNS": "1"})


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))


def raise_priority():
    """Puts this program's session in front of the machine's other users, as far as it may."""
    try:
        with open("/proc/self/autogroup", "w") as file:
            file.write("-20")
        os.nice(-20)
    except OSError as error:
        print(f"no higher priority: {error}", file=sys.stderr)
