"""Nodes that only tests need: inputs of every kind, good and bad."""

from __future__ import annotations

import sys
import threading
import types

import torch
from comfy_api.latest import ComfyExtension, io


class ProbeImage(io.ComfyNode):
    """A picture of any size."""

    @classmethod
    def define_schema(cls):
        sizes = [io.Int.Input(name, default=64, min=0, max=10_000) for name in ("batch", "width", "height", "channels")]
        return io.Schema(
            node_id="ProbeImage", category="probe", outputs=[io.Image.Output()],
            inputs=[*sizes, io.Boolean.Input("nan", default=False)],
        )

    @classmethod
    def execute(cls, batch, width, height, channels, nan):
        return io.NodeOutput(torch.full((batch, height, width, channels), torch.nan if nan else 0.5))


class ProbeAudio(io.ComfyNode):
    """Sound of any length."""

    @classmethod
    def define_schema(cls):
        numbers = [io.Int.Input(name, default=1, min=0, max=10**8) for name in ("clips", "channels", "samples", "rate")]
        return io.Schema(
            node_id="ProbeAudio", category="probe", outputs=[io.Audio.Output()],
            inputs=[*numbers, io.Boolean.Input("nan", default=False)],
        )

    @classmethod
    def execute(cls, clips, channels, samples, rate, nan):
        time = torch.arange(samples) / max(1, rate)
        wave = 0.3 * torch.sin(2 * torch.pi * 180 * time) * torch.sin(2 * torch.pi * 2.5 * time).abs()
        wave = torch.full_like(wave, torch.nan) if nan else wave
        return io.NodeOutput({"waveform": wave.expand(clips, channels, -1).clone(), "sample_rate": rate})


class ProbeLatent(io.ComfyNode):
    """Random latents."""

    @classmethod
    def define_schema(cls):
        names = ("batch", "channels", "length", "height", "width")
        numbers = [io.Int.Input(name, default=1, min=0, max=10_000) for name in names]
        return io.Schema(node_id="ProbeLatent", category="probe", outputs=[io.Latent.Output()], inputs=numbers)

    @classmethod
    def execute(cls, batch, channels, length, height, width):
        noise = torch.randn((batch, channels, length, height, width), generator=torch.Generator().manual_seed(1))
        return io.NodeOutput({"samples": noise})


class ProbeFeatures(io.ComfyNode):
    """What CLIPTextEncode and CLIPVisionEncode give, at any width."""

    @classmethod
    def define_schema(cls):
        numbers = [
            io.Int.Input(name, default=1, min=0, max=10_000)
            for name in ("tokens", "width", "image_tokens", "image_width", "seed")
        ]
        return io.Schema(
            node_id="ProbeFeatures", category="probe", inputs=numbers,
            outputs=[io.Conditioning.Output(), io.ClipVisionOutput.Output()],
        )

    @classmethod
    def execute(cls, tokens, width, image_tokens, image_width, seed):
        from comfy.clip_vision import Output

        generator = torch.Generator().manual_seed(seed)
        seen = Output()
        seen["penultimate_hidden_states"] = torch.randn((1, image_tokens, image_width), generator=generator)
        return io.NodeOutput([[torch.randn((1, tokens, width), generator=generator), {}]], seen)


class ProbeHoldModel(io.ComfyNode):
    """Uses LiveTalk's model as another run does, until it is told to let go."""

    let_go = threading.Event()

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ProbeHoldModel", category="probe", inputs=[io.Boolean.Input("held")], is_output_node=True,
        )

    @classmethod
    def execute(cls, held):
        if not held:
            cls.let_go.set()
            return io.NodeOutput()
        cls.let_go.clear()
        keeper = next(module for name, module in sys.modules.items() if name.endswith("livetalk.nodes.keeper")).KEEPER
        in_use = threading.Event()

        def use():
            recipe = types.SimpleNamespace(name="probe", gpus=1)
            backend = types.SimpleNamespace(worker_pids=(), close=lambda: None)
            with keeper.using(recipe, lambda: backend, lambda: None):
                in_use.set()
                cls.let_go.wait()

        threading.Thread(target=use, daemon=True).start()
        in_use.wait()
        return io.NodeOutput()


class ProbeExtension(ComfyExtension):
    async def get_node_list(self):
        return [ProbeImage, ProbeAudio, ProbeLatent, ProbeFeatures, ProbeHoldModel]


async def comfy_entrypoint():
    return ProbeExtension()
