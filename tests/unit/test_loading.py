"""Loading: every layout gives back exactly the weights that were saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from published_model import published_state, write_published_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import tiny_modules, write_tiny_model
from torch import nn

from livetalk_core.config import ChunkGeometry, Offload
from livetalk_core.errors import CheckpointError, ConfigError, OutputError
from livetalk_core.loading import Replacements, load_model, placement, safetensors_stream, save_model
from livetalk_core.loading.safetensors_stream import WeightSet
from livetalk_core.loading.shards import find_shards
from livetalk_core.models.bundle import ModelBundle, ModelDefaults
from livetalk_core.models.encoders import encode_text
from livetalk_core.models.library_names import stored_name

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, nn.Module]]:
    """A published folder as after conversion, with the modules that went into it."""
    folder = tmp_path_factory.mktemp("published") / "SoulX-Small"
    return folder, write_published_model(folder, pickled=False)


def assert_same_weights(loaded: nn.Module, saved: nn.Module) -> None:
    wanted = {k: v for k, v in saved.state_dict().items() if k != "masked_spec_embed"}
    state = loaded.state_dict()
    assert wanted.keys() == state.keys() - {"masked_spec_embed"}
    for name, value in wanted.items():
        assert torch.equal(state[name], value.to(state[name].dtype)), name


def modules_of(bundle: ModelBundle) -> dict[str, nn.Module]:
    return {
        "transformer": bundle.transformer,
        "vae": bundle.vae.vae,
        "audio_encoder": bundle.audio_encoder,
        "image_encoder": bundle.image_encoder,
    }


def test_own_layout_gives_back_what_was_saved(tiny_model_folder: Path) -> None:
    bundle = load_model(tiny_model_folder, "cpu", "fp32")
    saved = tiny_modules(0)
    for name, module in modules_of(bundle).items():
        assert_same_weights(module, saved[name])
        assert not module.training
        assert not any(p.requires_grad or p.is_meta for p in module.parameters())
        assert not any(b.is_meta for b in module.buffers())
    assert bundle.text_encoder is None and bundle.tokenizer is None
    assert (bundle.name, bundle.defaults.width, bundle.defaults.geometry.frames) == ("tiny-0", 64, 9)


def test_loaded_modules_compute_the_same_as_the_saved_ones(tiny_model_folder: Path) -> None:
    bundle = load_model(tiny_model_folder, "cpu", "fp32")
    saved = tiny_modules(0)
    pixels, sound = torch.randn(1, 3, 224, 224), torch.randn(1, 4000)
    with torch.no_grad():
        for name, sample in (("image_encoder", pixels), ("audio_encoder", sound)):
            ours, theirs = modules_of(bundle)[name](sample), saved[name](sample)
            assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)


def test_number_formats_follow_the_policy(tiny_model_folder: Path) -> None:
    bundle = load_model(tiny_model_folder, "cpu", "bf16")
    kept = {n for n, p in bundle.transformer.named_parameters() if p.dtype is torch.float32}
    assert kept and all("time_" in n or "modulation" in n or n.startswith("head.") for n in kept)
    assert {p.dtype for p in bundle.vae.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in bundle.audio_encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in bundle.image_encoder.parameters()} == {torch.float32}


def test_published_layout_gives_back_what_was_published(published: tuple[Path, dict[str, nn.Module]]) -> None:
    folder, saved = published
    bundle = load_model(folder, "cpu", "bf16")
    for name, module in {**modules_of(bundle), "text_encoder": bundle.text_encoder}.items():
        assert_same_weights(module, saved[name])
    assert bundle.audio_normalise
    assert (bundle.name, bundle.defaults.height, bundle.defaults.width) == ("SoulX-Small", 768, 448)
    assert bundle.transformer.config.audio_channels == 16
    assert encode_text(bundle.text_encoder, bundle.tokenizer, "abc").shape[2] == 16


@pytest.mark.parametrize(
    ("offload", "memory", "encoders"),
    [
        ("none", 1, "meta"), ("encoders", 2**60, "cpu"), ("auto", 2**60, "meta"), ("auto", 1, "cpu"),
        ("auto", None, "meta"),
    ],
)  # fmt: skip
def test_encoders_may_wait_in_host_memory(
    published: tuple[Path, dict[str, nn.Module]], monkeypatch: pytest.MonkeyPatch, offload: Offload,
    memory: int | None, encoders: str,
) -> None:  # fmt: skip
    """The meta device stands for a GPU with so many bytes."""
    folder, saved = published
    monkeypatch.setattr(placement, "available_devices", lambda: ["meta", "cpu"])
    monkeypatch.setattr(  # which cannot read onto the meta device; placing moves it there
        safetensors_stream, "safe_open", lambda path, framework, device: safe_open(path, framework, "cpu")
    )
    known = None if memory is None else (memory, memory)
    monkeypatch.setattr("livetalk_core.loading.load.memory_of", lambda device: known)
    bundle = load_model(folder, device="meta", dtype="fp32", offload=offload)
    for module in (bundle.text_encoder, bundle.image_encoder):
        assert module is not None and module.device.type == encoders
    for module in (bundle.transformer, bundle.vae.vae, bundle.audio_encoder):
        assert module.device.type == "meta"
    if encoders == "cpu":
        assert_same_weights(bundle.image_encoder, saved["image_encoder"])
        context = encode_text(bundle.text_encoder, bundle.tokenizer, "hello there")
        plain = load_model(folder, device="cpu", dtype="fp32", offload=offload)
        assert torch.equal(context, encode_text(plain.text_encoder, plain.tokenizer, "hello there"))


def test_audio_encoder_may_lie_beside_the_published_folder(
    published: tuple[Path, dict[str, nn.Module]], tmp_path: Path
) -> None:
    shutil.copytree(published[0], tmp_path / "model")
    (tmp_path / "model" / "chinese-wav2vec2-base").rename(tmp_path / "chinese-wav2vec2-base")
    assert load_model(tmp_path / "model", "cpu", "fp32").audio_normalise


def test_pickles_that_were_not_converted_are_answered_with_the_command(
    published: tuple[Path, dict[str, nn.Module]], tmp_path: Path
) -> None:
    folder = shutil.copytree(published[0], tmp_path / "my model")
    (folder / "Wan2.1_VAE.safetensors").rename(folder / "Wan2.1_VAE.pth")
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth") as caught:
        load_model(folder, "cpu", "fp32")
    assert f"livetalk convert '{folder}'" in caught.value.hint


def test_repackaged_files_take_the_place_of_the_folders_own(
    published: tuple[Path, dict[str, nn.Module]], tmp_path: Path
) -> None:
    folder, saved = published
    text = {k: v.clone() for k, v in saved["text_encoder"].state_dict().items() if "embed_tokens" not in k}
    save_file({**text, "spiece_model": torch.zeros(9, dtype=torch.uint8)}, tmp_path / "text.safetensors")
    extras = {
        "visual_projection.weight": torch.zeros(4, 32),
        "vision_model.embeddings.position_ids": torch.arange(17),
    }
    image = {stored_name(saved["image_encoder"], k): v for k, v in saved["image_encoder"].state_dict().items()}
    save_file({**image, **extras}, tmp_path / "image.safetensors")
    save_file(published_state("vae", saved["vae"].half()), tmp_path / "vae.safetensors")
    saved["vae"].float()
    chosen = Replacements(
        text_encoder=tmp_path / "text.safetensors",
        image_encoder=tmp_path / "image.safetensors",
        vae=tmp_path / "vae.safetensors",
    )
    bundle = load_model(folder, "cpu", "fp32", replacements=chosen)
    assert_same_weights(bundle.text_encoder, saved["text_encoder"])
    assert_same_weights(bundle.image_encoder, saved["image_encoder"])
    assert_same_weights(bundle.vae.vae, saved["vae"])


def test_scaled_8_bit_text_encoder_is_restored(published: tuple[Path, dict[str, nn.Module]], tmp_path: Path) -> None:
    folder, saved = published
    state: dict[str, torch.Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, value in saved["text_encoder"].state_dict().items():
        if name.endswith(("q.weight", "wi_0.weight")):
            scale = value.float().abs().max() / 448
            state[name] = (value.float() / scale).to(torch.float8_e4m3fn)
            state[name.removesuffix("weight") + "scale_weight"] = scale
        elif "embed_tokens" not in name:
            state[name] = value.clone()
    save_file(state, tmp_path / "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    chosen = Replacements(text_encoder=tmp_path / "umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    loaded = load_model(folder, "cpu", "fp32", replacements=chosen).text_encoder.state_dict()
    for name, value in saved["text_encoder"].state_dict().items():
        assert (loaded[name] - value.float()).abs().max() <= 0.04 * value.float().abs().max(), name


def test_scale_in_another_file_counts_and_one_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    weight = torch.ones(4, 4).to(torch.float8_e4m3fn)
    save_file({"a.weight": weight}, tmp_path / "1.safetensors")
    for scale in (torch.tensor(0.5), torch.full((4,), 0.5), torch.full((4, 1), 0.5)):
        save_file({"a.scale_weight": scale}, tmp_path / "2.safetensors")
        apart = WeightSet.open([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
        ((_, read),) = apart.stream(["a.weight"], torch.device("cpu"))
        assert torch.equal(read, torch.full((4, 4), 0.5))
    for shape in ((2,), (2, 2), (1, 4)):
        save_file({"a.weight": weight, "a.scale_weight": torch.ones(shape)}, tmp_path / "3.safetensors")
        with pytest.raises(CheckpointError, match=r"3\.safetensors.*of shape .* for a weight of shape \[4, 4\]"):
            WeightSet.open([tmp_path / "3.safetensors"])


@pytest.mark.parametrize("names", [["m-00001-of-00001 (1)"], ["m-00001-of-00002", "m-1-of-00002"]])
def test_shards_that_are_not_all_of_their_numbers_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        save_file({name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="incomplete set of shards"):
        find_shards(tmp_path, "m")


def test_revision_changes_with_any_weight_and_any_setting(tmp_path: Path, tiny_model_folder: Path) -> None:
    revision = load_model(tiny_model_folder, "cpu", "fp32").revision
    folder = shutil.copytree(tiny_model_folder, tmp_path / "copy")
    assert load_model(folder, "cpu", "bf16").revision == revision
    settings = folder / "audio_encoder" / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("true", "false"))
    changed = load_model(folder, "cpu", "fp32")
    assert changed.revision != revision and not changed.audio_normalise
    assert load_model(write_tiny_model(tmp_path / "other", seed=1), "cpu", "fp32").revision != revision


def test_sharded_model_equals_the_whole_one(tmp_path: Path, tiny_model_folder: Path) -> None:
    save_model(
        tmp_path / "sharded",
        **tiny_modules(0),
        audio_normalise=True,
        name="s",
        max_shard_bytes=1_500_000,
        defaults=ModelDefaults(width=64, height=64),
    )
    assert len(list((tmp_path / "sharded" / "vae").glob("*-of-*.safetensors"))) > 3
    whole = modules_of(load_model(tiny_model_folder, "cpu", "fp32"))
    for name, module in modules_of(load_model(tmp_path / "sharded", "cpu", "fp32")).items():
        assert_same_weights(module, whole[name])


def test_save_neither_replaces_a_folder_nor_leaves_half_of_one(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model")
    before = (tmp_path / "model" / "livetalk.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_tiny_model(tmp_path / "model", seed=1)
    broken = {**tiny_modules(0), "image_encoder": nn.Linear(2, 2)}
    with pytest.raises(AttributeError):
        save_model(
            tmp_path / "new",
            **broken,
            audio_normalise=True,
            name="x",
            defaults=ModelDefaults(width=64, height=64),
        )
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "livetalk.json").read_bytes() == before


def test_weights_are_stored_in_the_format_asked_for(tmp_path: Path) -> None:
    save_model(
        tmp_path / "half",
        **tiny_modules(0),
        audio_normalise=False,
        name="h",
        dtype=torch.float16,
        defaults=ModelDefaults(width=64, height=64),
    )
    stored = load_file(tmp_path / "half" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert not load_model(tmp_path / "half", "cpu", "fp32").audio_normalise


@pytest.mark.parametrize("size", ["tiny"])
def test_random_model_is_whole_and_repeatable(size: str) -> None:
    one, two = load_model(f"random:{size}", "cpu", "fp32"), load_model(f"random:{size}", "cpu", "fp32")
    for name, module in modules_of(one).items():
        assert_same_weights(module, modules_of(two)[name])
        assert all(
            torch.isfinite(p).all() and p.abs().max() > 0 for n, p in module.named_parameters() if "bias" not in n
        )
    latents = one.vae.encode(torch.zeros(1, 3, 5, 64, 64))
    assert torch.isfinite(one.vae.decode(latents)).all() and latents.shape == (1, 16, 2, 8, 8)


def test_stream_of_a_model_has_all_of_its_settings_but_those_that_are_changed() -> None:
    geometry = ChunkGeometry(frames=17)
    defaults = ModelDefaults(width=48, height=32, prompt="A person talks.", geometry=geometry)
    stream = defaults.stream(steps=2, seed=3, width=64)
    kept = set(ModelDefaults.__struct_fields__) - {"width", "sampler"}
    assert {name: getattr(stream, name) for name in kept} == {name: getattr(defaults, name) for name in kept}
    assert (stream.sampler.steps, stream.sampler.shift) == (2, defaults.sampler.shift)
    assert (stream.seed, stream.width) == (3, 64)
    with pytest.raises(ConfigError, match="width"):
        defaults.stream(width=5)
