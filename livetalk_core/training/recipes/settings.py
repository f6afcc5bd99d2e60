"""The knobs of a training run: frozen, validated, unknown keys refused."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ...config import SamplerConfig, Settings, decode_config, require
from ...errors import ConfigError


class OptimizerConfig(Settings, frozen=True, kw_only=True):
    """AdamW, its warm-up in updates, and the norm that gradients are clipped to."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 0

    def __post_init__(self) -> None:
        require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "above 0, below 1")
        require(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "0 or more, below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(self.clip > 0, "clip", self.clip, "above 0")
        require(self.warmup >= 0, "warmup", self.warmup, "0 or more")


class RunConfig(Settings, frozen=True, kw_only=True):
    """The loop around a method.

    Attributes:
        iterations: Updates of any network.
        batch: Clips per iteration over all ranks and micro-batches.
        accumulate: Micro-batches per iteration.
        precision: Number format of the networks' arithmetic; weights and optimiser are float32.
        checkpoint_activations: Recompute every block's activations in the backward pass.
        offload: Keep weights, gradients and optimiser of trained networks in host memory.
        save_every: Iterations between checkpoints.
        keep: Newest checkpoints that stay.
        log_every: Iterations averaged into one line of metrics.
        sample_every: Iterations between sample videos; 0: none.
        seed: Decides every random number of the run, together with iteration and sample.
    """

    iterations: int
    batch: int
    accumulate: int = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    checkpoint_activations: bool = False
    offload: bool = False
    save_every: int = 50
    keep: int = 2
    log_every: int = 5
    sample_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "accumulate", "save_every", "keep", "log_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.sample_every >= 0, "sample_every", self.sample_every, "0 or more")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        rest = self.batch % self.accumulate
        require(rest == 0, "batch", self.batch, f"a multiple of accumulate = {self.accumulate}")


class Stage1Config(Settings, frozen=True, kw_only=True, tag_field="stage", tag="stage1"):
    """Latency-aware adaptation: flow matching with clean motion latents (the paper's stage 1).

    Attributes:
        optimizer: Of the one trained network.
        shift: Time shift of the noise levels.
        drop_text, drop_all: Shares of clips trained without text, and without text and speech; what guidance of
            a teacher subtracts.
        flow_weight, face_weight, temporal_weight: Weights of the velocity's squared error, of its absolute error
            in the face region (where the data know it), and of the squared error of its change over time.
        ema_decay: Of the moving average that is exported.
        motion_noise: Largest disturbance of the motion latents that half of the clips are given, in units of their
            deviation; 0 keeps all clean. Who has seen disturbed ones finds back to the reference.
        fresh: Begin with random weights, a function of the run's seed, in place of the model's.
    """

    optimizer: OptimizerConfig
    shift: float = 5.0
    drop_text: float = 0.1
    drop_all: float = 0.1
    flow_weight: float = 1.0
    face_weight: float = 0.0
    temporal_weight: float = 0.0
    ema_decay: float = 0.999
    motion_noise: float = 0.0
    fresh: bool = False

    def __post_init__(self) -> None:
        require(0.01 <= self.shift <= 100, "shift", self.shift, "0.01 to 100")
        require(self.drop_text >= 0 and self.drop_all >= 0 and self.drop_text + self.drop_all <= 1,
                 "drop_text + drop_all", self.drop_text + self.drop_all, "0 to 1")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 or more, below 1")
        for name in ("flow_weight", "face_weight", "temporal_weight", "motion_noise"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


class RolloutConfig(Settings, frozen=True, kw_only=True):
    """How a student makes consecutive chunks in training.

    Attributes:
        sampler: Steps and shift of the student, as it will be used.
        motion: Motion latents of later chunks: the student's own, or the clip's true ones (teacher-forced).
        first_motion: Motion latent of a rollout's first chunk: the clip's first frame, or the reference picture.
        color_strength: Of the colour match before frames are encoded again.
    """

    sampler: SamplerConfig = SamplerConfig()
    motion: Literal["own", "clip"] = "own"
    first_motion: Literal["clip", "reference"] = "clip"
    color_strength: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.color_strength <= 1, "color_strength", self.color_strength, "0 to 1")


class Stage2Config(Settings, frozen=True, kw_only=True, tag_field="stage", tag="stage2"):
    """Self-correcting bidirectional distillation (the paper's stage 2).

    Attributes:
        student, fake_score: Optimisers of the two trained networks.
        rollout: How the student makes its chunks.
        max_chunks: K_max: a rollout has 1..K_max chunks.
        text_guidance, audio_guidance: Of the teacher; 1 is none.
        times: Noise levels for teacher and fake score: from the student's own step down to its next, or all.
        min_time, max_time: They are clamped to these.
        noisy_teacher_motion: Whether teacher and fake score see noised motion latents (the paper) or clean ones.
        motion_alignment: Weight of the pull of the student's estimate in the motion frames to the teacher's.
        critic_updates: Updates of the fake score per update of the student.
        ema_decay: Of the student's moving average that is exported; 0 exports the student itself.
    """

    student: OptimizerConfig
    fake_score: OptimizerConfig
    rollout: RolloutConfig = RolloutConfig()
    max_chunks: int = 5
    text_guidance: float = 3.0
    audio_guidance: float = 4.0
    times: Literal["interval", "full"] = "interval"
    min_time: float = 0.02
    max_time: float = 0.98
    noisy_teacher_motion: bool = False
    motion_alignment: float = 0.0
    critic_updates: int = 1
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        require(1 <= self.max_chunks <= 64, "max_chunks", self.max_chunks, "1 to 64")
        require(self.critic_updates >= 1, "critic_updates", self.critic_updates, "1 or more")
        require(0 < self.min_time < self.max_time < 1, "min_time, max_time", (self.min_time, self.max_time),
                 "0 < min_time < max_time < 1")
        require(self.motion_alignment >= 0, "motion_alignment", self.motion_alignment, "0 or more")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 or more, below 1")


class TrainingRecipe(Settings, frozen=True, kw_only=True):
    """One stage of training.

    Attributes:
        name: As on the command line.
        about: What it is for, in a sentence.
        run: The loop.
        method: The stage and its settings.
        world: Ranks the recipe was made for.
        size: Width and height that the memory plan assumes.
    """

    name: str
    about: str
    run: RunConfig
    method: Stage1Config | Stage2Config
    world: int = 1
    size: tuple[int, int] = (448, 768)


def change_recipe(recipe: TrainingRecipe, changes: Sequence[str]) -> TrainingRecipe:
    """The recipe with settings changed, each given as `path.to.setting=value`.

    Raises:
        ConfigError: no such setting, or a value that it cannot have.
    """
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    for change in changes:
        path, equals, text = change.partition("=")
        keys = path.strip().split(".")
        place = plain
        for key in keys[:-1]:
            place = place[key] if isinstance(place.get(key), dict) else {}
        if not equals or keys[-1] not in place or keys[-1] == "stage":
            near = difflib.get_close_matches(path.strip(), _paths(plain), n=3, cutoff=0.4)
            hint = f"Did you mean {' or '.join(near)}?" if near else "livetalk train recipes NAME shows all settings."
            raise ConfigError(f"There is no setting {path.strip()!r} in {change!r}.", f"{hint} Write SETTING=VALUE.")
        place[keys[-1]] = _value(text.strip())
    return decode_config(TrainingRecipe, plain, "--set")


def _paths(plain: dict[str, Any], before: str = "") -> list[str]:
    nested = [_paths(v, f"{before}{k}.") if isinstance(v, dict) else [f"{before}{k}"] for k, v in plain.items()]
    return [path for paths in nested for path in paths if not path.endswith("stage")]


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
