"""Stage 1: motion latents stay clean, new frames are judged, conditioning is dropped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from denoisers import Watched, draw
from torch import Tensor, nn
from training_data import GEOMETRY, recipe

from livetalk_core.training.data.prepared import PreparedSet
from livetalk_core.training.methods.denoiser import Conditioning
from livetalk_core.training.methods.losses import frame_mean
from livetalk_core.training.methods.stage1 import NETWORK, Stage1
from livetalk_core.training.recipes import Stage1Config
from livetalk_core.training.trainer.draws import Purpose

pytestmark = pytest.mark.unit


def stage1(network: nn.Module, **changes: Any) -> Stage1:
    settings = recipe("stage1", **{f"method__{key}": value for key, value in changes.items()}).method
    assert isinstance(settings, Stage1Config)
    return Stage1(network, settings, GEOMETRY.motion_latents)  # type: ignore[arg-type]


class Silent(nn.Module):
    """Predicts no velocity."""

    def forward(self, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
        return torch.zeros_like(latents)


def test_stage1_judges_new_frames_only(prepared: PreparedSet) -> None:
    """A network that predicts nothing has the error |noise - clean|^2, on the frames that are not given."""
    batch = draw(prepared, clips=4)
    method = stage1(Silent(), face_weight=0.0, temporal_weight=0.0)
    losses, _ = method.step(batch, 0)
    clean = batch.latents[:, 0]
    target = batch.draws.normal(Purpose.NOISE, tuple(clean.shape[1:])) - clean
    known = method._known(batch.draws, clean)
    expected = torch.stack([target[b][:, ~known[b, 0, :, 0, 0]].square().mean() for b in range(4)]).mean()
    assert float(losses[NETWORK].detach()) == pytest.approx(float(expected), rel=1e-5)
    other = batch.latents.clone()
    other[:, :, :, :1] += 3
    changed, _ = method.step(replace(batch, latents=other), 0)
    assert float(changed[NETWORK].detach()) == float(losses[NETWORK].detach())


def test_stage1_gives_motion_latents_clean_and_noises_the_rest(prepared: PreparedSet) -> None:
    watched = Watched(Silent())
    batch = draw(prepared, clips=8)
    method = stage1(watched)
    method.step(batch, 0)
    latents, level, _ = watched.seen[0]
    clean = batch.latents[:, 0]
    known = method._known(batch.draws, clean).expand_as(clean)
    assert torch.equal(latents[known], clean[known])
    assert not torch.isclose(latents[~known], clean[~known]).any(dim=0).all()
    assert set(method._known(batch.draws, clean)[:, 0, :, 0, 0].sum(1).tolist()) == {1, 2}
    assert ((level > 0) & (level <= 1000)).all()


def test_disturbed_motion_changes_what_is_given_and_not_what_is_asked(prepared: PreparedSet) -> None:
    batch = draw(prepared, clips=16)
    clean, disturbed = Watched(Silent()), Watched(Silent())
    expected, _ = stage1(clean).step(batch, 0)
    method = stage1(disturbed, motion_noise=1.0)
    found, _ = method.step(batch, 0)
    assert torch.equal(found[NETWORK], expected[NETWORK])
    new = ~method._known(batch.draws, batch.latents[:, 0])
    change = disturbed.seen[0][0] - clean.seen[0][0]
    assert (change * new == 0).all()
    changed = change.flatten(1).abs().amax(1) > 0
    assert 0 < int(changed.sum()) < 16
    both = changed & (~new[:, 0, :2, 0, 0]).all(1)
    first, second = change[both][:, :, 0].flatten(), change[both][:, :, 1].flatten()
    # Half of the disturbance is common to the frames.
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) == pytest.approx(0.5, abs=0.1)


def test_stage1_drops_conditioning_as_guidance_needs_it(prepared: PreparedSet) -> None:
    watched = Watched(Silent())
    batch = draw(prepared, clips=16)
    batch = replace(batch, context=batch.context + 1)
    stage1(watched, drop_all=0.3, drop_text=0.3).step(batch, 0)
    given = watched.seen[0][2]
    silent = given.windows.flatten(1).abs().sum(1) == 0
    wordless = (given.context == batch.null_context).flatten(1).all(1)
    assert 0 < int(silent.sum()) < int(wordless.sum()) < 16
    assert wordless[silent].all()


def test_stage1_weighs_face_and_change_over_time(prepared: PreparedSet) -> None:
    batch = draw(prepared)
    plain, _ = stage1(Silent(), face_weight=0.0, temporal_weight=0.0).step(batch, 0)
    weighed, facts = stage1(Silent(), face_weight=0.5, temporal_weight=0.25).step(batch, 0)
    expected = float(plain[NETWORK].detach()) + 0.5 * float(facts["face"]) + 0.25 * float(facts["temporal"])
    assert float(weighed[NETWORK].detach()) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(batch.face.mean()) < 1


def test_frame_mean_is_per_clip() -> None:
    values = torch.arange(24.0).view(2, 1, 3, 2, 2)
    frames = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]).view(2, 1, 3, 1, 1)
    assert torch.allclose(frame_mean(values, frames), torch.stack([values[0, :, 1:].mean(), values[1, :, 2:].mean()]))
