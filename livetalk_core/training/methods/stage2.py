"""Stage 2, self-correcting bidirectional distillation: distribution matching on the student's own rollouts.

Reference 1.5, stage 2. The numbers in comments are its items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import ChunkGeometry
from ...models.vae import WanVideoVAE
from ...sampling import TRAINING_STEPS, paste_motion, renoise
from ..data.batches import Batch
from ..recipes import Stage2Config
from ..trainer.draws import Draws, Purpose
from ..trainer.method import Frozen, Losses, Networks, Outputs, Trained, Weights
from .denoiser import Denoiser, clean_estimate, spread
from .guidance import guided_estimate
from .losses import frame_mean, matching_gradient, surrogate
from .rollout import LastChunk, Rollout

STUDENT, FAKE_SCORE, TEACHER = "student", "fake_score", "teacher"


@dataclass(frozen=True)
class _Probe:
    """A last chunk noised for teacher and fake score.

    Attributes:
        latents: Noisy latents [B,16,T,h,w], motion frames as the recipe wants them.
        noise: What was mixed in.
        level: 0..1000, [B].
    """

    latents: Tensor
    noise: Tensor
    level: Tensor


class Stage2:
    """`Method` of stage 2.

    Args:
        student, fake_score, teacher: Three networks; in the paper all have the same first weights.
        vae: Decodes and encodes between the chunks of a rollout.
        geometry: Chunks.
        config: Everything else.
        seed: Of the run; K and the exit step are functions of it and the iteration.
        weights, teacher_weights: As in `Trained`, of student and fake score, and of the teacher. The fake score stands
            for what the student makes: with other first weights it would have to unlearn the teacher's first.
    """

    def __init__(
        self,
        student: Denoiser,
        fake_score: Denoiser,
        teacher: Denoiser,
        vae: WanVideoVAE,
        geometry: ChunkGeometry,
        config: Stage2Config,
        seed: int,
        weights: Weights | None = None,
        teacher_weights: Weights | None = None,
    ) -> None:
        self.student, self.fake_score, self.teacher = student, fake_score, teacher
        self.config, self.seed = config, seed
        self.rollout = Rollout(vae, geometry, config.rollout)
        trained = {
            STUDENT: Trained(student, config.student, config.ema_decay, weights),
            FAKE_SCORE: Trained(fake_score, config.fake_score, 0.0, weights),
        }
        self._networks = Networks(trained, {TEACHER: Frozen(teacher, teacher_weights)})

    @property
    def networks(self) -> Networks:
        """Student, fake score and teacher."""
        return self._networks

    def turn(self, iteration: int) -> str:
        """Whose iteration it is: one of the student, then `critic_updates` of the fake score."""
        return STUDENT if iteration % (self.config.critic_updates + 1) == 0 else FAKE_SCORE

    def chunks(self, iteration: int) -> int:
        """K of an iteration, the same on all ranks (item 1)."""
        return 1 + Draws(self.seed, iteration, range(0)).shared(Purpose.CHUNKS, self.config.max_chunks)

    def step(self, batch: Batch, iteration: int) -> tuple[Losses, Outputs]:
        """The loss of the student, or that of the fake score."""
        if self.turn(iteration) == STUDENT:
            return self._student_step(batch)
        return self._fake_score_step(batch)

    def _student_step(self, batch: Batch) -> tuple[Losses, Outputs]:
        last = self._last_chunk(batch)
        new = _frames(~last.known)
        probe = self._probe(last, batch.draws)
        with torch.no_grad():  # 5
            fake = clean_estimate(self.fake_score, probe.latents, probe.level, last.given)
            config = self.config
            real = guided_estimate(
                self.teacher, probe.latents, probe.level, last.given, batch.null_context,
                config.text_guidance, config.audio_guidance,
            )  # fmt: skip
            gradient = matching_gradient(last.clean, fake, real, new)  # 6
        loss = surrogate(last.clean, gradient, new).mean()
        facts = {
            "gap": frame_mean((fake - real).abs(), new).mean(),
            "distance": frame_mean((last.clean.detach() - real).abs(), new).mean(),
        }
        if config.motion_alignment:
            pull = frame_mean((last.clean - real).square(), _frames(last.known)).mean()
            known = int(last.known.sum())
            loss = loss + config.motion_alignment * known / (len(last.known) - known) * pull
            facts["alignment"] = pull.detach()
        return {STUDENT: loss}, {f"{STUDENT}.{name}": value for name, value in facts.items()}

    def _fake_score_step(self, batch: Batch) -> tuple[Losses, Outputs]:
        with torch.no_grad():  # 7
            last = self._last_chunk(batch)
            probe = self._probe(last, batch.draws)
        velocity = self.fake_score(probe.latents, probe.level, last.given)
        error = velocity - (probe.noise - last.clean)
        return {FAKE_SCORE: 0.5 * frame_mean(error.square(), _frames(~last.known)).mean()}, {}

    def _last_chunk(self, batch: Batch) -> LastChunk:
        exit_step = batch.draws.shared(Purpose.EXIT, len(self.rollout.levels) - 1)  # 3
        return self.rollout.last_chunk(self.student, batch, batch.latents.shape[1], exit_step)

    def _probe(self, last: LastChunk, draws: Draws) -> _Probe:
        clean = last.clean.detach()
        level = self.probe_levels(last.exit, draws).to(clean.device)
        noise = draws.normal(Purpose.NOISE, tuple(clean.shape[1:])).to(clean.device)
        noisy = renoise(clean, noise, spread(level))
        motion = renoise(last.motion, noise, spread(level)) if self.config.noisy_teacher_motion else last.motion
        return _Probe(paste_motion(noisy, motion, last.known), noise, level)

    def probe_levels(self, exit_step: int, draws: Draws) -> Tensor:
        """Noise levels 0..1000 for teacher and fake score, [B] (item 4)."""
        config = self.config
        shift = config.rollout.sampler.shift
        high, low = 1.0, 0.0
        if config.times == "interval":
            # Back through the time shift: the steps are equally spaced before it.
            high, low = (_unshift(float(t) / TRAINING_STEPS, shift) for t in self.rollout.levels[exit_step:][:2])
        raw = low + (high - low) * draws.uniform(Purpose.LEVEL)
        shifted = shift * raw / (1 + (shift - 1) * raw)
        return shifted.clamp(config.min_time, config.max_time) * TRAINING_STEPS


def _unshift(level: float, shift: float) -> float:
    return level / (shift - (shift - 1) * level)


def _frames(chosen: Tensor) -> Tensor:
    """bool [T] -> weights [1,1,T,1,1]."""
    return chosen.float().view(1, 1, -1, 1, 1)
