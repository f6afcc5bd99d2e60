"""Ranks on several hosts: who starts them, and where they meet. For trusted networks only.

The ranks talk through torch.distributed, which neither encrypts nor asks who is there. The first host has the
supervisor, which starts its own ranks through `torchrun`; the others run the same `torchrun` by hand or by a service
manager that starts it again when it ends.
"""

from __future__ import annotations

import sys

from ..config import Settings, require

LAUNCHER = "torch.distributed.run"


class Hosts(Settings, frozen=True, kw_only=True):
    """Several hosts with equally many ranks each.

    Attributes:
        nodes: How many hosts.
        ranks_per_node: Ranks on each of them.
        master: Address of the first host, as the others see it.
        port: A free port there.
        interface: Network device that all traffic between ranks takes; its name has to be the same on every host.
    """

    nodes: int
    ranks_per_node: int = 1
    master: str
    port: int = 29_500
    interface: str

    def __post_init__(self) -> None:
        require(2 <= self.nodes <= 64, "hosts.nodes", self.nodes, "2 to 64")
        require(1 <= self.ranks_per_node <= 16, "hosts.ranks_per_node", self.ranks_per_node, "1 to 16")
        require(0 < len(self.master) <= 255, "hosts.master", self.master, "a host's name or address")
        require(1024 <= self.port <= 65_535, "hosts.port", self.port, "1024 to 65535")
        require(0 < len(self.interface) <= 15, "hosts.interface", self.interface, "a network device such as eth0")

    @property
    def world(self) -> int:
        """Ranks on all hosts."""
        return self.nodes * self.ranks_per_node

    def command(self, node: int, worker: str, device: str) -> list[str]:
        """What starts the ranks of host `node` (0 is the first)."""
        return [
            sys.executable, "-m", LAUNCHER, "--nnodes", str(self.nodes), "--node-rank", str(node),
            "--nproc-per-node", str(self.ranks_per_node), "--master-addr", self.master,
            "--master-port", str(self.port), "--max-restarts", "0",
            "-m", worker, "--interface", self.interface, "--device", device,
        ]  # fmt: skip
