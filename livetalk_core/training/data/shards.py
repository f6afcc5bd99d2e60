"""The tensors of clips on their way to disk, in files of bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...loading.atomic_files import require_space, write_safetensors

SHARD_BYTES = 2**30
"""Clips that come to more are written before the next one is encoded: a long video need not fit into memory."""


class ShardWriter:
    """Collects the clips of one part of a data set, one file per bucket and about `SHARD_BYTES`.

    Args:
        folder: Of the data set.
        part: Number of the part, for the names of the files.
    """

    def __init__(self, folder: Path, part: int) -> None:
        self._folder, self._part = folder, part
        self._held: dict[str, dict[str, Tensor]] = {}
        self._bytes = self._flushes = 0

    def add(self, bucket: str, clip: str, tensors: Mapping[str, Tensor]) -> str:
        """Take the tensors of a clip.

        Returns:
            Name of the file that they will be in.

        Raises:
            OutputError: what was held cannot be written.
        """
        if self._bytes >= SHARD_BYTES:
            self.flush()
        more = f"_{self._flushes}" if self._flushes else ""
        shard = f"{bucket}_{self._part:05d}{more}.safetensors"
        self._held.setdefault(shard, {}).update({f"{clip}/{kind}": tensor for kind, tensor in tensors.items()})
        self._bytes += sum(tensor.nbytes for tensor in tensors.values())
        return shard

    def flush(self) -> None:
        """Write what is held.

        Raises:
            OutputError: it cannot be written.
        """
        require_space(self._folder, self._bytes)
        for name, tensors in self._held.items():
            write_safetensors(self._folder / name, tensors)
        self._held, self._bytes = {}, 0
        self._flushes += 1
