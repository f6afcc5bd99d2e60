"""Cases of test_models: transformer, VAE and engine, split against whole."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from sequence_cases import over_gloo
from tiny_model import AUDIO_CHANNELS, AUDIO_LAYERS, IMAGE_WIDTH, tiny_modules

from livetalk_core.config import ChunkGeometry, CorrectionConfig, SamplerConfig, StreamConfig
from livetalk_core.engine import Engine
from livetalk_core.loading import load_model
from livetalk_core.models.attention import LocalShard
from livetalk_core.models.bundle import ModelBundle, ModelDefaults
from livetalk_core.models.transformer import LiveTalkTransformer3DModel
from livetalk_core.models.vae import WanVideoVAE
from livetalk_core.parallel.agreement import require_agreement
from livetalk_core.parallel.apply import parallelise
from livetalk_core.parallel.groups import Groups
from livetalk_core.parallel.plan import choose_grid, make_plan, plan_tokens
from livetalk_core.parallel.sequence import SequenceParallel
from livetalk_core.parallel.vae import ParallelVAE
from livetalk_core.parallel.vae_tiles import TiledVAE

HEADS = 12
DEGREES = {2: [(2, 1), (1, 2)], 3: [(3, 1), (1, 3)], 4: [(4, 1), (1, 4), (2, 2)]}
LATENTS = {2: [(4, 4), (6, 6)], 3: [(6, 6), (4, 10)], 4: [(4, 4), (2, 6)]}
"""Divisible and not; on four ranks the last is left without a token."""
PICTURES = {2: [(4, 4), (3, 5)], 3: [(6, 4), (1, 2)], 4: [(4, 4), (5, 5), (3, 1)]}
"""Latent sizes: even and uneven grids, and more ranks than tiles."""
GEOMETRY = ChunkGeometry(frames=9, motion_frames=5, window_seconds=1)


def transformer(groups: Groups, ulysses: int, ring: int, height: int, width: int) -> dict[str, float]:
    """The whole model, split against one rank."""
    torch.manual_seed(1)
    model = LiveTalkTransformer3DModel(
        text_len=8, dim=96, ffn_dim=96, freq_dim=32, text_dim=16, num_heads=HEADS, num_layers=2, intermediate_dim=32,
        output_dim=24, context_tokens=4, audio_layers=AUDIO_LAYERS, audio_channels=AUDIO_CHANNELS, clip_dim=IMAGE_WIDTH,
    ).eval()  # fmt: skip
    torch.nn.init.normal_(model.head.head.weight, std=0.05)
    frames = 3
    latents, y = torch.randn(1, 16, frames, height, width), torch.randn(1, 20, frames, height, width)
    windows = torch.randn(1, 1 + 4 * (frames - 1), 5, AUDIO_LAYERS, AUDIO_CHANNELS)
    with torch.no_grad():
        stream = model.encode_stream(torch.randn(1, 8, 16), torch.randn(1, 5, IMAGE_WIDTH))
        arguments = (latents, y, torch.tensor([700.0]), stream, model.encode_audio(windows))
        whole = model(*arguments)
        shard = SequenceParallel(groups, ulysses, ring)
        model.use_sequence(shard)
        split, again = model(*arguments), model(*arguments)
        model.use_sequence(LocalShard())
    start, stop = shard.token_range(frames * height * width // 4)
    return {
        "largest": float(whole.abs().max()),
        "difference": float((split - whole).abs().max()),
        "repeat": float((split - again).abs().max()),
        "tokens": stop - start,
    }


@lru_cache(maxsize=3)
def _vae(patch: int) -> WanVideoVAE:
    """A VAE of the published shape (1) or of the embedded model's (2) with random weights; the embedded one (0)."""
    if patch == 0:
        return load_model(None, "cpu", "fp32").vae
    torch.manual_seed(2)
    sizes: dict[str, Any] = {"base_dim": 4, "dim_mult": [1, 2, 2, 2], "temperal_downsample": [False, True, True]}
    if patch == 2:
        sizes = {
            "base_dim": 4, "dim_mult": [1, 2, 2], "temperal_downsample": [True, True], "in_channels": 12,
            "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 8,
        }  # fmt: skip
    return WanVideoVAE(AutoencoderKLWan(num_res_blocks=1, z_dim=16, **sizes).eval().requires_grad_(False))


def vae(groups: Groups, height: int, width: int, patch: int) -> dict[str, Any]:
    """Decode and encode, split against whole: in full, in groups, and as 8-bit frames on rank 0."""
    whole = _vae(patch)
    split = ParallelVAE(whole, groups)
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 16, 6, height, width, generator=generator)
    video = torch.rand(1, 3, 9, 8 * height, 8 * width, generator=generator) * 2 - 1
    with torch.no_grad():
        decoded, encoded = whole.decode(latents), whole.encode(video)
        groups_of_frames = [part.shape[2] for part in split.decode_groups(latents)]
        raw = latents / whole.inv_std + whole.mean
        frames = list(split.decode_frames(raw))
        precise = WanVideoVAE(copy.deepcopy(whole.vae).double())
        exact = precise.decode(latents.double())
        several = ParallelVAE(precise, groups)
        result = {
            "precise": float((several.decode(latents.double()) - exact).abs().max()),
            "precise_encode": float((several.encode(video.double()) - precise.encode(video.double())).abs().max()),
            "grid": str(choose_grid(groups.world, (height, width))),
            "decode": float((split.decode(latents) - decoded).abs().max()),
            "decode_raw": float((split.decode_raw(raw) - whole.decode_raw(raw)).abs().max()),
            "encode": float((split.encode(video) - encoded).abs().max()),
            "still": float((split.encode(video[:, :, :2], 7) - whole.encode(_still(video))).abs().max()),
            "spread": float(decoded.std()),
            "encoded_spread": float(encoded.std()),
            "groups": groups_of_frames,
            "frames": sum(0 if part is None else part.shape[0] for part in frames),
            "eight_bit": 0,
            "tiled": 0,
        }
    alone = list(TiledVAE(whole, Groups(0, 1, groups.device), 3, 1).decode_frames(raw))
    for ours, theirs in zip(TiledVAE(whole, groups, 3, 1).decode_frames(raw), alone, strict=True):
        assert (ours is None) == (groups.rank > 0)
        if ours is not None:
            result["tiled"] = max(result["tiled"], int((ours.int() - theirs.int()).abs().max()))
    if groups.rank == 0:
        full = torch.cat([part for part in frames if part is not None])
        expected = ((decoded[0].permute(1, 2, 3, 0) + 1) * 127.5 + 0.5).to(torch.uint8)
        result["eight_bit"] = int((full.int() - expected.int()).abs().max())
    return result


def _still(video: torch.Tensor) -> torch.Tensor:
    """Nine frames, the second one again from the third on."""
    return torch.cat([video[:, :, :1], video[:, :, 1:2].expand(-1, -1, 8, -1, -1)], dim=2)


def interleaved(groups: Groups) -> dict[str, Any]:
    """Two videos of different sizes decoded in turn, group by group, against one after the other."""
    split = ParallelVAE(_vae(2), groups)
    videos = [torch.randn(1, 16, 3, *size, generator=torch.Generator().manual_seed(4)) for size in ((2, 6), (5, 3))]
    apart = [list(split.decode_groups(latents, 1)) for latents in videos]
    turns = zip(*(split.decode_groups(latents, 1) for latents in videos), strict=True)
    together = list(zip(*turns, strict=True))
    pairs = [(a, b) for x, y in zip(apart, together, strict=True) for a, b in zip(x, y, strict=True)]
    return {"same": all(torch.equal(a, b) for a, b in pairs)}


def _bundle() -> ModelBundle:
    modules = tiny_modules(4)
    return ModelBundle(
        transformer=modules["transformer"], vae=WanVideoVAE(modules["vae"]), audio_encoder=modules["audio_encoder"],
        audio_normalise=True, image_encoder=modules["image_encoder"], text_encoder=None, tokenizer=None,
        defaults=ModelDefaults(width=48, height=32, geometry=GEOMETRY), name="tiny", revision="4",
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip


def engine(groups: Groups) -> dict[str, Any]:
    """Two chunks of a stream, the second after a re-anchoring, on all ranks against one; the state agrees between
    ranks after each."""
    bundle = _bundle()
    config = StreamConfig(
        width=48, height=32, seed=5, geometry=GEOMETRY, sampler=SamplerConfig(steps=2),
        correction=CorrectionConfig(lookback=2, drift_threshold=0.0),
    )  # fmt: skip
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    sound = generator.standard_normal(2 * GEOMETRY.slice_samples).astype(np.float32) * 0.1
    parts = np.split(sound, 2)
    alone = Engine(bundle).open_stream(config, picture)
    expected = np.concatenate([alone.step(part).frames for part in parts])
    plan = make_plan(groups.world, bundle.transformer.config.num_heads, plan_tokens(3, (4, 6)), (4, 6))
    together = Engine(parallelise(bundle, plan, groups)).open_stream(config, picture)
    frames = []
    for part in parts:
        frames.append(together.step(part).frames)
        state = together.state
        tensors = list(state.tensors().values())
        require_agreement(groups, f"state after chunk {state.chunk - 1}", [state.chunk, state.samples], tensors)
    off = np.abs(np.concatenate(frames).astype(int) - expected.astype(int))
    return {"identical": float((off == 0).mean()), "largest": int(off.max()), "spread": float(expected.std())}


def disagreement(groups: Groups) -> dict[str, Any]:
    """A tensor that differs on the last rank, then a number that does."""
    last = groups.rank == groups.world - 1
    found = []
    for numbers, tensor in (([1], torch.full((3,), float(last))), ([int(last)], torch.zeros(3))):
        try:
            require_agreement(groups, "state", numbers, [tensor])
            found.append([])
        except Exception as error:
            found.append([type(error).__name__, str(error)])
    return {"found": found}


def wrong_plan(groups: Groups) -> dict[str, Any]:
    """A plan for one rank more."""
    plan = make_plan(groups.world + 1, 2, 18, (4, 6))
    try:
        parallelise(dataclasses.replace(_bundle()), plan, groups)
    except Exception as error:
        return {"error": type(error).__name__}
    return {"error": ""}


def cases(world: int) -> dict[str, Callable[[Groups], dict[str, Any]]]:
    """All cases of a world."""
    found: dict[str, Callable[[Groups], dict[str, Any]]] = {
        "engine": engine, "disagreement": disagreement, "wrong_plan": wrong_plan, "interleaved": interleaved
    }  # fmt: skip
    for ulysses, ring in DEGREES[world]:
        for height, width in LATENTS[world]:
            key = f"transformer-{ulysses}x{ring}-{height}x{width}"
            found[key] = partial(transformer, ulysses=ulysses, ring=ring, height=height, width=width)
    for height, width in PICTURES[world]:
        for patch in (1, 2):
            found[f"vae-{height}x{width}-{patch}"] = partial(vae, height=height, width=width, patch=patch)
    height, width = PICTURES[world][-1]
    found[f"vae-{height}x{width}-0"] = partial(vae, height=height, width=width, patch=0)
    found[f"vae-{height}x{width}-1-gloo"] = partial(over_gloo, found[f"vae-{height}x{width}-1"])
    return found
