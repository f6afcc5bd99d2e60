"""Training of the mouth and eye measures: seeded data, useful degradations, reproducible weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from livetalk_core.lip_sync import EYES, MOUTH
from livetalk_core.lip_sync.measure import load_measure
from livetalk_core.training.embedded.lip_measure_data import FaceSet, degraded_regions, render_faces
from livetalk_core.training.embedded.train_lip_measure import LipMeasureConfig, errors_on, save_measures, train_region

pytestmark = pytest.mark.unit

CONFIG = LipMeasureConfig(batch=12)


@pytest.fixture(scope="module")
def data() -> FaceSet:
    return render_faces(12, 0, seed=1)


def test_faces_are_a_function_of_the_seed(data: FaceSet) -> None:
    again, other = render_faces(12, 0, seed=1), render_faces(12, 0, seed=2)
    assert torch.equal(data.faces, again.faces)
    assert torch.equal(data.opening, again.opening)
    assert not torch.equal(data.opening, other.opening)
    assert len(data) == 48
    assert float(data.opening.max()) > 0.5 > float(data.opening.min())


@pytest.mark.parametrize("spec", [MOUTH, EYES])
def test_some_regions_stay_clean_and_none_leaves_the_range(data: FaceSet, spec: object) -> None:
    region = MOUTH if spec is MOUTH else EYES
    spoilt = degraded_regions(data.faces, region, torch.Generator().manual_seed(0))
    assert spoilt.shape == (48, 3, region.height, region.width)
    assert float(spoilt.min()) >= 0.0
    assert float(spoilt.max()) <= 1.0
    # A clean picture has only multiples of 1/255.
    steps = spoilt * 255
    clean = ((steps - steps.round()).abs().amax(dim=(1, 2, 3)) < 1e-3).float().mean()
    assert 0.05 < float(clean) < 0.4


def test_training_learns_and_is_reproducible(data: FaceSet) -> None:
    first, second = (train_region(MOUTH, data, 6, CONFIG) for _ in range(2))
    weights = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    spread = float((data.opening - data.opening.mean()).abs().mean())
    trained = train_region(MOUTH, data, 50, CONFIG)
    assert float(errors_on(trained, MOUTH, data, None).abs().mean()) < 0.6 * spread


def test_saved_weights_load_as_the_same_function(data: FaceSet, tmp_path: Path) -> None:
    networks = {spec.name: train_region(spec, data, 3, CONFIG) for spec in (MOUTH, EYES)}
    path = tmp_path / "measures.safetensors"
    save_measures(networks, path)
    for spec in (MOUTH, EYES):
        region = spec.cut(data.faces[:4]).float() / 255
        expected = networks[spec.name](region)
        assert np.allclose(load_measure(spec, path)(region), expected, atol=5e-3)
