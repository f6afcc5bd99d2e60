"""LoadLiveTalkModel: which model, and how it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from .core import require_core
from .host import CATEGORY, ModelType, checked_inputs, io, model_roots, vae_files, vae_path
from .limits import MAX_GPUS, choice_problem, require_no_problem
from .model_list import file_stamp, find_model_folder, list_models, model_stamp
from .recipes import ModelRecipe

DEVICES = ["auto", "cuda", "cpu"]
PRECISIONS = ["auto", "bf16", "fp16", "fp32"]
ATTENTIONS = ["auto", "torch", "xfuser"]
OFFLOADS = ["auto", "none", "encoders"]
LISTS = {"device": DEVICES, "precision": PRECISIONS, "attention": ATTENTIONS, "offload": OFFLOADS}
OWN_VAE = "the model's own"


class LoadLiveTalkModel(io.ComfyNode):
    """Describes a model; it is loaded when a video is first made with it."""

    @classmethod
    def define_schema(cls) -> Any:
        """What the page shows of it."""
        return io.Schema(
            node_id="LoadLiveTalkModel",
            display_name="Load LiveTalk Model",
            category=CATEGORY,
            description="Chooses the model that makes a person speak, and how it runs. It is loaded when it is first "
            "needed, and kept for the next run.",
            inputs=[
                io.Combo.Input(
                    "model", options=list_models(model_roots()), default="embedded",
                    tooltip="'embedded' comes with LiveTalk and runs on any computer: drawn faces, 128x128. Others are "
                    "folders in models/livetalk.",
                ),
                io.Int.Input(
                    "gpus", default=1, min=1, max=MAX_GPUS,
                    tooltip="How many GPUs work on each chunk together (Linux). On a CPU: how many processes.",
                ),
                io.Combo.Input(
                    "device", options=DEVICES, default="auto",
                    tooltip="Where the model computes. 'auto' takes the GPU if there is one.",
                ),
                io.Combo.Input(
                    "precision", options=PRECISIONS, default="auto",
                    tooltip="Number format. 'auto' takes bf16 where the hardware computes in it, else fp32.",
                ),
                io.Combo.Input(
                    "attention", options=ATTENTIONS, default="auto",
                    tooltip="How several GPUs share attention. 'auto' takes xfuser where it agrees with torch.",
                ),
                io.Boolean.Input(
                    "compile", default=False,
                    tooltip="Compile the transformer: minutes once, then faster. Worth it for long videos. On a CPU it "
                    "needs a C++ compiler.",
                ),
                io.Combo.Input(
                    "vae", options=[OWN_VAE, *vae_files()], default=OWN_VAE,
                    tooltip="Only for decoding LATENT with Parallel VAE Decode: a Wan 2.1 VAE from models/vae.",
                ),
                io.Combo.Input(
                    "offload", options=OFFLOADS, default="auto", optional=True,
                    tooltip="What waits in main memory: 'encoders' the text and image encoder, which leaves a quarter "
                    "of the 14B model's weights off the GPU; 'none' nothing; 'auto' what the GPU is too small for.",
                ),
            ],
            outputs=[ModelType.Output(display_name="model", tooltip="For the other LiveTalk nodes.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """Whether this machine has the files, and values are on their lists; None comes through a link."""
        others = checked_inputs().values("vae", *LISTS)
        return (model is not None and _model_problem(model)) or _choice_problem(others) or True

    @classmethod
    def fingerprint_inputs(cls, model: str, vae: str, **_: Any) -> str:
        """Changes with the files."""
        stamp = model_stamp(find_model_folder(model, model_roots())) if model else ""
        return stamp if vae in (None, OWN_VAE) else f"{stamp} {file_stamp(Path(vae_path(vae)))}"

    @classmethod
    def execute(
        cls,
        model: str,
        gpus: int,
        device: str,
        precision: str,
        attention: str,
        compile: bool,
        vae: str,
        offload: Literal["auto", "none", "encoders"] = "auto",
    ) -> Any:
        """A recipe; InputError for choices that do not go together."""
        require_core()
        choices = {"vae": vae, "device": device, "precision": precision, "attention": attention, "offload": offload}
        require_no_problem(_model_problem(model) or _choice_problem(choices))
        from .planning import model_defaults

        folder = find_model_folder(model, model_roots())
        recipe = ModelRecipe(
            name=model, folder=None if folder is None else str(folder), stamp=model_stamp(folder),
            device=device, dtype=precision, gpus=gpus, attention=attention, compile=compile, offload=offload,
            vae_file=None if vae == OWN_VAE else vae_path(vae),
        )  # fmt: skip
        model_defaults(recipe)  # an incomplete folder is reported here
        return io.NodeOutput(recipe)


def _model_problem(model: str) -> str:
    roots = model_roots()
    problem = choice_problem({"model": model}, {"model": list_models(roots)})
    return problem and f"{problem} Others are folders in {roots[0]}."


def _choice_problem(choices: dict[str, Any]) -> str:
    return choice_problem(choices, {**LISTS, "vae": [OWN_VAE, *vae_files()]})
