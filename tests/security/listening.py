"""Who listens where, asked of the kernel: Linux tells it in /proc."""

import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LISTENS = "0A"  # TCP_LISTEN of <linux/tcp_states.h>


def family(pid: int) -> set[int]:
    """Give a process and all that it started, and these."""
    parents = {int(each.parent.name): _parent(each) for each in Path("/proc").glob("[0-9]*/stat")}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def addresses(pids: set[int]) -> set[str]:
    """Give the addresses at which processes listen for TCP connections, `address:port`."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    return {address for inode, address in _listening() if inode in inodes}


def beyond_loopback(pids: set[int]) -> set[str]:
    """Give those of them that other machines reach."""
    return {each for each in addresses(pids) if not _host(each).is_loopback}


@contextmanager
def running(*command: str) -> Iterator[set[int]]:
    """Run a command of Python's until it has said a line, and give its processes; it ends with its input."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        while (line := process.stdout.readline()) and "ready" not in line and "->" not in line:
            pass
        assert line, "it has ended"
        yield family(process.pid)
        process.stdin.close()
        process.terminate()


def assert_loopback(pids: set[int]) -> None:
    """Something listens, and nothing beyond loopback."""
    assert addresses(pids)
    assert beyond_loopback(pids) == set()


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # it has ended
        return 0


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):  # it has ended
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # it was closed, such as what this was listed by
                name = str(each.readlink())
                if name.startswith("socket:["):
                    yield name[len("socket:[") : -1]


def _listening() -> Iterator[tuple[str, str]]:
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTENS:
                host, _, port = local.partition(":")
                yield rest[5], f"{_address(host)}:{int(port, 16)}"


def _address(text: str) -> str:
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]  # 32 bits each, little-endian
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(address.rpartition(":")[0])
