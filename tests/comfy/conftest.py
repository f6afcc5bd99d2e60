"""A real ComfyUI with the pack, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import ROOT, Prompt

PROBES = Path(__file__).parent / "probe_pack"
SMALL_14B = "SoulX-FlashTalk-14B"
"""A random model of the published layout, a few megabytes, under the name that the workflows ask for."""

RANDOM_VAE = "wan_2.1_vae.safetensors"
Runner = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a host nothing here can run."""
    from tools.comfy_host import host_folder

    if not (host_folder() / "host" / "main.py").is_file():
        skip = pytest.mark.skip(reason=f"no ComfyUI in {host_folder()}: make comfy-setup downloads one")
        for item in items:
            if Path(item.path).is_relative_to(Path(__file__).parent):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The host, with the pack merely linked into custom_nodes, and with small models where large ones belong."""
    from published_model import VAE_FILES, write_published_model

    from tools.comfy_host.server import ComfyServer

    base = tmp_path_factory.mktemp("comfy")
    models = base / "models" / "livetalk"
    write_published_model(models / SMALL_14B, pickled=False)
    (models / "half a model").mkdir()
    (models / "half a model" / "livetalk.json").write_text("{}")
    (base / "models" / "vae").mkdir()
    own = models / SMALL_14B / f"{VAE_FILES[0]}.safetensors"
    (base / "models" / "vae" / RANDOM_VAE).write_bytes(own.read_bytes())
    with ComfyServer((ROOT, PROBES), base=base) as running:
        yield running


@pytest.fixture
def run(server: Any) -> Runner:
    """Queue a prompt on the shared host and wait for its end."""
    from tools.comfy_host.client import run_prompt

    def call(prompt: Prompt, **options: Any) -> Any:
        return run_prompt(server.url, prompt, **options)

    return call


@pytest.fixture
def refused(run: Runner) -> Callable[[Prompt], list[str]]:
    """Queue a prompt that is answered with HTTP 400; what is said about it."""
    from tools.comfy_host.client import RefusedError

    def call(prompt: Prompt) -> list[str]:
        with pytest.raises(RefusedError) as caught:
            run(prompt)
        sentences: list[str] = caught.value.sentences()
        return sentences

    return call
