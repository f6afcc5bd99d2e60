"""Where a model computes and in which number formats; what this machine does not offer is refused by name."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from ..errors import DeviceError
from .hardware import cpu_has_bf16

logger = logging.getLogger("livetalk")

DTYPE_NAMES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}
ENCODERS = ("text_encoder", "image_encoder")
"""What is used once per stream only."""

_GIB = 1024**3
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Placement:
    """Device and number format of each module as published.

    Attributes:
        device: Where everything computes that is not said to be elsewhere.
        encoder_device: Where text and image encoder are, which are used once per stream: the same, or the CPU.
        dtype: Transformer and VAE.
        text_dtype: Text encoder.
        image_dtype: Image encoder: float16 on a GPU, as published, else float32.
        audio_dtype: Audio encoder, always float32.
    """

    device: torch.device
    encoder_device: torch.device
    dtype: torch.dtype
    text_dtype: torch.dtype
    image_dtype: torch.dtype
    audio_dtype: torch.dtype = torch.float32

    def device_of(self, module: str) -> torch.device:
        """Where a module of a `ModelBundle` belongs."""
        return self.encoder_device if module in ENCODERS else self.device

    def offloaded(self) -> Placement:
        """The same with text and image encoder in host memory."""
        return replace(self, encoder_device=torch.device("cpu"), image_dtype=torch.float32)


def choose_placement(device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> Placement:
    """Settle device and formats; "auto" takes the first GPU, else the CPU, and bfloat16 where it is native.

    Raises:
        DeviceError: a device or format this machine or build of torch does not offer.
    """
    chosen = resolve_device(device)
    number_format = resolve_dtype(dtype, chosen)
    image = torch.float16 if chosen.type == "cuda" else torch.float32
    return Placement(chosen, chosen, number_format, text_dtype=number_format, image_dtype=image)


def resolve_device(device: str | torch.device) -> torch.device:
    """A usable device from its name ("auto", "cpu", "cuda", "cuda:1", "mps").

    Raises:
        DeviceError: unknown, or not available on this machine.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"{device!r} is not a device.", f"Available: {', '.join(available_devices())}.") from error
    if chosen.type == "cpu":
        return torch.device("cpu")
    if chosen.type == "cuda":
        return _cuda(chosen)
    if str(chosen) not in available_devices():
        raise DeviceError(f"Device {str(chosen)!r} is not available.", f"Available: {', '.join(available_devices())}.")
    return chosen


def available_devices() -> list[str]:
    """Names of the devices a model can be put on here."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def _cuda(chosen: torch.device) -> torch.device:
    available = f"available: {', '.join(available_devices())}"
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(
            f"Device {str(chosen)!r} was asked for, but torch {torch.__version__} has no CUDA; {available}.",
            "Install the CUDA build of torch (https://pytorch.org/get-started/locally) or take the device cpu.",
        )
    if not torch.cuda.is_available():
        raise DeviceError(
            f"Device {str(chosen)!r} was asked for, but torch sees no GPU; {available}.",
            "Check the driver with nvidia-smi, or take the device cpu.",
        )
    index = 0 if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise DeviceError(f"There is no {str(chosen)!r}; {available}.", "Name one of the available devices.")
    return torch.device("cuda", index)


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """A number format from its name ("auto", "fp32", "bf16", "fp16").

    Raises:
        DeviceError: unknown, or one the device cannot compute in.
    """
    if isinstance(dtype, str):
        if dtype == "auto":
            return choose_dtype(device)
        if dtype not in DTYPE_NAMES:
            raise DeviceError(f"{dtype!r} is not a number format.", "Use auto, fp32, bf16 or fp16.")
        dtype = DTYPE_NAMES[dtype]
    if dtype not in DTYPE_NAMES.values():
        raise DeviceError(f"{dtype} is not a number format of models.", "Use fp32, bf16 or fp16.")
    if dtype is torch.float16 and device.type == "cpu":
        raise DeviceError("fp16 was asked for on the CPU, where it is neither fast nor accurate.", "Use bf16 or fp32.")
    return dtype


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it, else float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if device.type == "cpu" and cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def memory_of(device: torch.device) -> tuple[int, int] | None:
    """Bytes (free now, in all) of the device; None where it cannot be told."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    if device.type != "cpu":
        return None
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    total, free = int(memory.total + swap.total), int(memory.available + swap.free)
    limit = _container_limit()
    return (free, total) if limit is None else (min(free, limit), min(total, limit))


def _container_limit() -> int | None:
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None


def require_memory(needed: int, device: torch.device, what: str) -> None:
    """Refuse weights that can never fit; warn about those that do not fit into what is free now.

    Raises:
        DeviceError: `needed` bytes exceed the device's whole memory.
    """
    memory = memory_of(device)
    if memory is None:
        return
    free, total = memory
    if needed > total:
        raise DeviceError(
            f"The weights of {what} need {needed / _GIB:.1f} GiB, {device} has {total / _GIB:.1f} GiB.",
            "Use a device with more memory, bf16 instead of fp32, or offload 'encoders'.",
            needed_bytes=needed,
            total_bytes=total,
            device=str(device),
        )
    if needed > free:
        logger.warning(
            "%s needs %.1f GiB for its weights, %s has %.1f GiB free: loading may fail.",
            what,
            needed / _GIB,
            device,
            free / _GIB,
        )
