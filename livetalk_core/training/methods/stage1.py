"""Stage 1, latency-aware adaptation: flow matching on chunks that continue clean motion latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...sampling import TRAINING_STEPS, renoise
from ..data.batches import Batch
from ..recipes import Stage1Config
from ..trainer.draws import Draws, Purpose
from ..trainer.method import Losses, Networks, Outputs, Trained, Weights
from .denoiser import Conditioning, Denoiser, spread
from .losses import frame_mean

NETWORK = "denoiser"


class Stage1:
    """`Method` of stage 1.

    Args:
        denoiser: What is trained.
        config: Losses and levels.
        motion_latents: Latent frames that a later chunk continues; the first chunk continues one.
        weights: As in `Trained`.
    """

    def __init__(
        self, denoiser: Denoiser, config: Stage1Config, motion_latents: int, weights: Weights | None = None
    ) -> None:
        self.denoiser, self.config, self.motion_latents = denoiser, config, motion_latents
        self._networks = Networks({NETWORK: Trained(denoiser, config.optimizer, config.ema_decay, weights)})

    @property
    def networks(self) -> Networks:
        """The one network."""
        return self._networks

    def chunks(self, iteration: int) -> int:
        """Chunks are learnt one by one."""
        return 1

    def step(self, batch: Batch, iteration: int) -> tuple[Losses, Outputs]:
        """Weighted errors of the velocity on the new latent frames."""
        draws, clean = batch.draws, batch.latents[:, 0]
        new = ~self._known(draws, clean)
        level = self._level(draws).to(clean.device)
        noise = draws.normal(Purpose.NOISE, tuple(clean.shape[1:])).to(clean.device)
        noisy = torch.where(new, renoise(clean, noise, spread(level)), self._motion(draws, clean))
        error = self.denoiser(noisy, level, self._given(batch)) - (noise - clean)
        parts = self._parts(error, new.float(), batch.face)
        loss = self._total(parts)
        return {NETWORK: loss}, {name: value.detach().mean() for name, value in parts.items()}

    def _known(self, draws: Draws, clean: Tensor) -> Tensor:
        """Which latent frames are motion frames: 1 or all of them, bool [B,1,T,1,1]."""
        counts = 1 + torch.tensor(draws.integers(Purpose.MOTION_COUNT, self.motion_latents))
        known = torch.arange(clean.shape[2]) < counts[:, None]
        return known[:, None, :, None, None].to(clean.device)

    def _motion(self, draws: Draws, clean: Tensor) -> Tensor:
        """Latents whose motion frames the network is given: the true ones, or disturbed as drift disturbs them.

        Half of a disturbance stays over the frames, as what decoding and encoding again adds does; half changes.
        """
        if not self.config.motion_noise:
            return clean
        share = draws.uniform(Purpose.MOTION_STRENGTH)
        strength = spread((share - 0.5).clamp(min=0) * 2 * self.config.motion_noise).to(clean.device)
        noise = draws.normal(Purpose.MOTION_NOISE, tuple(clean.shape[1:])).to(clean.device)
        lasting = draws.normal(Purpose.MOTION_NOISE, (clean.shape[1], 1, *clean.shape[3:]), index=1).to(clean.device)
        return clean + strength * (noise + lasting) / 2**0.5

    def _level(self, draws: Draws) -> Tensor:
        """s(U{1..1000}/1000) in 0..1000, [B]."""
        raw = (torch.tensor(draws.integers(Purpose.LEVEL, TRAINING_STEPS)) + 1) / TRAINING_STEPS
        shift = self.config.shift
        return shift * raw / (1 + (shift - 1) * raw) * TRAINING_STEPS

    def _given(self, batch: Batch) -> Conditioning:
        given = Conditioning(batch.y, batch.clip_features, batch.context, batch.windows[:, 0])
        share = batch.draws.uniform(Purpose.DROP).to(batch.y.device)
        everything = share < self.config.drop_all
        text = share < self.config.drop_all + self.config.drop_text
        return given.without_text(batch.null_context, text).without_speech(everything)

    def _parts(self, error: Tensor, new: Tensor, face: Tensor) -> Mapping[str, Tensor]:
        """Each kind of error per clip, [B]."""
        config = self.config
        parts = {"flow": frame_mean(error.square(), new)}
        if config.face_weight:
            parts["face"] = frame_mean(error.abs(), new * face)
        if config.temporal_weight:
            change = error[:, :, 1:] - error[:, :, :-1]
            parts["temporal"] = frame_mean(change.square(), new[:, :, 1:] * new[:, :, :-1])
        return parts

    def _total(self, parts: Mapping[str, Tensor]) -> Tensor:
        config = self.config
        weights = {"flow": config.flow_weight, "face": config.face_weight, "temporal": config.temporal_weight}
        return torch.stack([weights[name] * value.mean() for name, value in parts.items()]).sum()
