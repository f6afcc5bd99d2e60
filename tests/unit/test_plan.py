"""The parallel plan: degrees, refusals with their equation, and the cost model against published numbers."""

from __future__ import annotations

import pytest

from livetalk_core.errors import ConfigError, DeviceError
from livetalk_core.parallel.cost import chunk_cost, predict, require_fits, transformer_flops
from livetalk_core.parallel.gpus import find_gpu
from livetalk_core.parallel.model_shape import ModelShape, TransformerShape, VAEShape
from livetalk_core.parallel.plan import choose_grid, make_plan, plan_tokens

pytestmark = pytest.mark.unit

PUBLISHED_TOKENS = 12_096
PUBLISHED_HW = (96, 56)


@pytest.mark.parametrize(
    ("world", "degrees"),
    [
        (1, (1, 1)),
        (2, (2, 1)),
        (3, (1, 3)),
        (4, (4, 1)),
        (5, (5, 1)),
        (6, (2, 3)),
        (7, (1, 7)),
        (8, (8, 1)),
        (16, (8, 2)),
    ],
)
def test_degrees_are_the_published_ones(world: int, degrees: tuple[int, int]) -> None:
    plan = make_plan(world, 40, PUBLISHED_TOKENS, PUBLISHED_HW)
    assert (plan.ulysses, plan.ring) == degrees


@pytest.mark.parametrize(
    ("arguments", "equation"),
    [
        ({"ulysses": 3}, "40 heads / ulysses 3 leaves 1"),
        ({"ulysses": 2}, "ulysses 2 x ring 1 = 2, but there are 3 ranks"),
        ({"ulysses": 1, "ring": 2}, "ulysses 1 x ring 2 = 2, but there are 3 ranks"),
        ({"ring": 0}, "ring is 0"),
        ({"ulysses": -1}, "ulysses is -1"),
    ],
)
def test_refusals_print_the_equation(arguments: dict[str, int], equation: str) -> None:
    with pytest.raises(ConfigError, match=equation):
        make_plan(3, 40, PUBLISHED_TOKENS, PUBLISHED_HW, **arguments)


def test_more_ranks_than_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="18 tokens / 19 ranks is less than one"):
        make_plan(19, 40, 18, (4, 6))


def test_one_explicit_degree_decides_the_other() -> None:
    assert make_plan(8, 40, 100, PUBLISHED_HW, ring=4).ulysses == 2
    assert make_plan(8, 40, 100, PUBLISHED_HW, ulysses=4).ring == 2


@pytest.mark.parametrize(("world", "tokens"), [(0, 10), (2, 0), (-1, 10)])
def test_numbers_below_one_are_refused(world: int, tokens: int) -> None:
    with pytest.raises(ConfigError):
        make_plan(world, 40, tokens, PUBLISHED_HW)


def test_tokens_of_the_published_sizes() -> None:
    assert plan_tokens(9, (96, 56)) == PUBLISHED_TOKENS
    assert plan_tokens(9, (90, 52)) == 10_530
    with pytest.raises(ConfigError, match="57 latent width / 2 per patch leaves a remainder"):
        plan_tokens(9, (96, 57))


def test_grids_lose_no_column_where_the_published_code_does() -> None:
    assert str(choose_grid(5, PUBLISHED_HW)) == "5x1"
    assert sum(choose_grid(5, PUBLISHED_HW).heights) == 96
    assert str(choose_grid(8, PUBLISHED_HW)) == "4x2"
    assert str(choose_grid(1, PUBLISHED_HW)) == "1x1"


def test_more_ranks_than_cells_leaves_ranks_without_a_tile() -> None:
    grid = choose_grid(7, (2, 3))
    assert grid.tiles == 6
    assert grid.tile(6) is None
    assert grid.rank(-1, 0) is None


def test_cost_agrees_with_the_counted_one() -> None:
    """The numbers of torch's FLOP counter at 768x448: 471 per step with text keys, which are cached here; 97.1; 9.3."""
    cost = chunk_cost(make_plan(1, 40, PUBLISHED_TOKENS, PUBLISHED_HW), ModelShape(), 9, 2, 4)
    assert cost.step_flops / 1e12 == pytest.approx(471 - 3.2, rel=0.01)
    assert cost.attention_flops / 1e12 == pytest.approx(120, rel=0.01)
    assert cost.decode.flops / 1e12 == pytest.approx(97.1, rel=0.01)
    assert cost.encode.flops / 1e12 == pytest.approx(9.3, rel=0.01)
    assert ModelShape().transformer.parameters / 1e9 == pytest.approx(18.56, rel=0.02)


def test_links_carry_what_the_roofline_page_says() -> None:
    eight = chunk_cost(make_plan(8, 40, PUBLISHED_TOKENS, PUBLISHED_HW), ModelShape(), 9, 2, 4)
    assert eight.ulysses_bytes / 1e9 == pytest.approx(2.17, rel=0.01)
    ring = chunk_cost(make_plan(8, 40, PUBLISHED_TOKENS, PUBLISHED_HW, ulysses=1), ModelShape(), 9, 2, 4)
    assert ring.ring_bytes / 1e9 == pytest.approx(8.67, rel=0.01)
    assert ring.ulysses_bytes == 0


def test_prediction_is_the_roofline_of_eight_h800() -> None:
    plan = make_plan(8, 40, PUBLISHED_TOKENS, PUBLISHED_HW)
    prediction = predict(plan, chunk_cost(plan, ModelShape(), 9, 2, 4), find_gpu("h800"))
    assert prediction.transformer == pytest.approx(0.238, rel=0.01)
    assert prediction.links == pytest.approx(0.043, rel=0.05)
    assert prediction.roofline == pytest.approx(0.299, rel=0.03)
    assert prediction.roofline < prediction.expected


def test_float32_has_its_own_rates_and_weights() -> None:
    plan, shape = make_plan(8, 40, PUBLISHED_TOKENS, PUBLISHED_HW), ModelShape()
    half, full = (chunk_cost(plan, shape, 9, 2, 4, width) for width in (2, 4))
    card = find_gpu("H200")
    slower = predict(plan, full, card).transformer / predict(plan, half, card).transformer
    assert slower == pytest.approx(card.bf16 / card.fp32)
    assert (full.weight_bytes - half.weight_bytes) / 1e9 == pytest.approx(2 * 18.56 + 11.4, rel=0.01)


def test_steps_read_the_transformer_alone_from_memory() -> None:
    plan = make_plan(40, 40, PUBLISHED_TOKENS, PUBLISHED_HW)
    prediction = predict(plan, chunk_cost(plan, ModelShape(), 9, 2, 4), find_gpu("H800"))
    assert prediction.transformer == pytest.approx(4 * 468e12 / 40 / 989e12, rel=0.01)


@pytest.mark.parametrize(("degrees", "words"), [
    ({"ulysses": 16}, "ulysses 16 x ring 1 = 16, but there are 8"), ({"ring": 16}, "ulysses 1 x ring 16 = 16"),
    ({"ulysses": 0}, "ulysses is 0"), ({"ring": 0}, "ring is 0"),
])  # fmt: skip
def test_degrees_that_make_no_world_are_refused_by_their_own_name(degrees: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_plan(8, 40, PUBLISHED_TOKENS, PUBLISHED_HW, **degrees)


def test_a_card_too_small_is_refused_with_the_sum() -> None:
    cost = chunk_cost(make_plan(8, 40, PUBLISHED_TOKENS, PUBLISHED_HW), ModelShape(), 9, 2, 4)
    with pytest.raises(DeviceError, match=r"weights .* GB \+ working memory .* GB = .* GB; the RTX4090 has 24 GB"):
        require_fits(cost, find_gpu("rtx 4090"))
    require_fits(cost, find_gpu("H100"))


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("NVIDIA H200", "H200"), ("rtx-5090", "RTX5090"), ("4090", "RTX4090"), ("H20", "H20"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA H100 80GB HBM3", "H100"),
    ],
)
def test_cards_are_found_in_any_spelling(spelling: str, name: str) -> None:
    assert find_gpu(spelling).name == name


def test_memory_in_the_name_counts() -> None:
    assert find_gpu("NVIDIA A100-SXM4-40GB").memory == 40e9
    assert find_gpu("NVIDIA A100-SXM4-80GB").memory == find_gpu("a100").memory == 80e9


@pytest.mark.parametrize(
    "name", ["", "Voodoo2", "RTX A1000", "GH200", "RTX 4090 Laptop GPU", "NVIDIA A100-SXM4-80GB MIG 3g.40gb"]
)
def test_unknown_cards_are_refused_with_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match="H800"):
        find_gpu(name)


def test_shapes_are_read_from_configurations() -> None:
    config = {"dim": 192, "num_heads": 3, "num_layers": 6, "ffn_dim": 512, "text_len": 8, "patch_size": [1, 2, 2]}
    shape = TransformerShape.from_config(config, image_tokens=17)
    assert (shape.heads, shape.layers, shape.image_tokens, shape.audio_tokens) == (3, 6, 17, 32)
    assert transformer_flops(shape, 192, 3)[0] > 0
    vae = VAEShape.from_config(
        {"base_dim": 16, "dim_mult": [1, 2, 4], "temperal_downsample": [True, True], "patch_size": 2}
    )
    assert vae.spatial_stride == 8
    assert VAEShape().spatial_stride == 8
