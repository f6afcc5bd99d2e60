"""Make the two golden folders: `published` (cut from recorded vectors) and `small` (made by this engine).

Usage: python tests/golden/make_vectors.py cut FOLDER_WITH_VECTORS
       python tests/golden/make_vectors.py small

`published` decides whether the function is the published one. `small` pins down what `published` is too large to
hold within 2 MB: a transformer, a VAE and two chunks that bring fewer new frames than they repeat.
Make it again only when `livetalk conformance` passes on the full vectors.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor

from livetalk_core.conformance import run
from livetalk_core.models.state_dict_adapter import published_adapter
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

HERE = Path(__file__).parent
KEPT = {
    "color_io": None,
    "t5_weights": None,
    "t5_io": None,
    "audio_weights": None,
    "audio_io": ("in.pcm_8s", "mid.hidden_states_s_b_d"),
}
"""Files of the published vectors and the tensors kept of each (None: all)."""

DIT: dict[str, Any] = {
    "model_type": "i2v", "patch_size": [1, 2, 2], "text_len": 5, "in_dim": 36, "dim": 16, "ffn_dim": 24, "freq_dim": 16,
    "text_dim": 6, "out_dim": 16, "num_heads": 2, "num_layers": 1, "qk_norm": True, "cross_attn_norm": True,
    "eps": 1e-6, "audio_window": 5, "intermediate_dim": 8, "output_dim": 12, "context_tokens": 3, "vae_scale": 4,
    "norm_input_visual": True, "norm_output_audio": True,
}  # fmt: skip
FREE = {"audio_layers": 2, "audio_channels": 4, "clip_dim": 10}
VAE: dict[str, Any] = {
    "dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 2], "num_res_blocks": 1, "temporal_downsample": [False, True, True],
}  # fmt: skip
CHUNK: dict[str, Any] = {
    "frames": 13, "motion": 9, "hw": [16, 32], "seed": 1, "shift": 3.0, "steps": 3, "color_strength": 0.7,
}  # fmt: skip


def cut(source: Path) -> None:
    """Copy the kept tensors of the published vectors."""
    target = HERE / "published"
    target.mkdir(exist_ok=True)
    (target / "meta.json").write_text((source / "meta.json").read_text())
    for stem, names in KEPT.items():
        tensors = load_file(source / f"{stem}.safetensors")
        kept = {name: tensors[name] for name in names or tensors}
        save_file(kept, target / f"{stem}.safetensors")


def small() -> None:
    """Random weights and inputs, and what this engine makes of them."""
    target = HERE / "small"
    target.mkdir(exist_ok=True)
    configs = {"dit": DIT, "vae": VAE, "chunk": CHUNK}
    (target / "meta.json").write_text(json.dumps({"configs": configs, "dtype": "fp32"}, indent=1))
    generator = torch.Generator().manual_seed(0)
    save_file(_weights(LiveTalkTransformer3DModel(**DIT, **FREE), generator), target / "dit_weights.safetensors")
    vae = AutoencoderKLWan(
        base_dim=VAE["dim"], z_dim=VAE["z_dim"], dim_mult=VAE["dim_mult"], num_res_blocks=VAE["num_res_blocks"],
        temperal_downsample=VAE["temporal_downsample"],
    )  # fmt: skip
    weights = _weights(vae, generator)
    published = dict(published_adapter("vae", weights.keys()).to_published(iter(weights.items())))
    save_file({name: value.contiguous() for name, value in published.items()}, target / "vae_weights.safetensors")
    inputs = {"dit_io": _dit_inputs(generator), "vae_io": _vae_inputs(generator), "chunk_io": _chunk_inputs(generator)}
    for stem, tensors in inputs.items():
        save_file(tensors, target / f"{stem}.safetensors")
    with tempfile.TemporaryDirectory() as scratch:
        run(target, scratch)
        for stem, tensors in inputs.items():
            computed = load_file(Path(scratch) / f"{stem}.safetensors")
            save_file({**tensors, **_worth_keeping(computed)}, target / f"{stem}.safetensors")


def _weights(model: torch.nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    state = {}
    for name, value in model.state_dict().items():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and value.shape[-1] > 1 else 0.2
        state[name] = torch.randn(value.shape, generator=generator) * scale + (scale == 0.2) * 0.8
    return state


def _dit_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "in.x": randn(16, 3, 2, 4), "in.y": randn(1, 20, 3, 2, 4), "in.context": randn(3, 6),
        "in.clip_fea": randn(1, 7, 10), "in.audio": randn(1, 9, 5, 2, 4), "in.t": torch.tensor([833.25]),
    }  # fmt: skip


def _vae_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "in.video_9": torch.rand(1, 3, 9, 16, 16, generator=generator) * 2 - 1,
        "in.latent_3": torch.randn(16, 3, 2, 2, generator=generator),
    }


def _chunk_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    frames, (height, width) = CHUNK["frames"], CHUNK["hw"]
    latents = (16, 1 + (frames - 1) // 4, height // 8, width // 8)
    noise = {f"mid.chunk{k}.noise{i}": randn(*latents) for k in range(2) for i in range(CHUNK["steps"] + 1)}
    audio = {f"in.chunk{k}.audio": randn(1, frames, 5, 2, 4) for k in range(2)}
    image = torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8)
    return {"in.context": randn(3, 6), "in.clip_fea": randn(1, 7, 10), "in.image_u8": image, **audio, **noise}


def _worth_keeping(computed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything but the large intermediates, which later results depend on anyway."""
    return {
        name: value.contiguous() for name, value in computed.items()
        if not name.endswith(("decoded", "cond_image")) and "latent_in" not in name
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["cut"]:
        cut(Path(sys.argv[2]))
    else:
        small()
