"""The player on the node while a video is made: moving picture, sound, and everything that comes in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import SINK
from comfy_page import Opener

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]
SLOW = {"steps": 12}
"""Three times the steps: there is time to do something before the video is done."""
SMALL = {"width": 64, "height": 64, "steps": 1, "max_seconds": 2.0}
SECOND_SINK = 9


def status(comfy: Any, node: str | int = SINK) -> str:
    text: str = comfy.ask(f"player({node}).querySelector('.livetalk-status').textContent")
    return text


@pytest.mark.parametrize("nodes_2", [False, True], ids=["drawn nodes", "Nodes 2.0"])
def test_a_template_is_opened_run_and_watched(comfy: Opener, nodes_2: bool, tmp_path: Path) -> None:
    one = comfy(nodes_2=nodes_2)
    open_template(one.page, "talking_avatar")
    one.set("StreamChunkSampler", seed=int(nodes_2) + 1)
    one.run()
    one.until(f"moves({SINK})")
    seconds = one.ask("(performance.now() - seen.pressed) / 1000")
    assert not one.ask("ended()")
    one.until("count('livetalk.chunk') >= 3")
    pictures = Path(os.environ.get("LIVETALK_PICTURES", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    one.page.screenshot(path=pictures / f"running_{'nodes_2' if nodes_2 else 'drawn'}.png")
    one.until("ended()")
    done = one.ask("(performance.now() - seen.pressed) / 1000")
    print(json.dumps({"nodes_2": nodes_2, "playing_after": seconds, "done_after": done}))
    assert one.ask("ended()") == "execution_success" and one.ask("count('livetalk.chunk')") == 9
    one.until(f"video({SINK}).src.includes('/view?')")  # it has been seen to its end
    assert one.ask(f"video({SINK}).getBoundingClientRect().height") > 100
    assert not [text for text in one.said if "livetalk" in text.lower()]


def open_template(page: Any, name: str) -> None:
    """Workflow > Browse Templates > livetalk > name."""
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("livetalk", exact=True).first.click()
    dialog.locator(f"[data-testid='template-workflow-{name}']").first.dispatch_event("click")
    page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'ParallelVAEDecode')")


def test_it_begins_silent_and_speaks_when_asked(comfy: Opener) -> None:
    one = comfy()
    one.open("talking_avatar", seed=11, **SLOW)
    one.run()
    one.until(f"moves({SINK})")
    assert one.ask(f"video({SINK}).muted")
    one.page.get_by_role("button", name="Turn the sound on").click()
    assert not one.ask(f"video({SINK}).muted")
    assert one.page.get_by_role("button", name="Turn the sound on").is_hidden()
    one.until(f"video({SINK}).webkitAudioDecodedByteCount > 1000")


def test_a_page_that_is_loaded_again_goes_on_with_the_newest_chunk(comfy: Opener) -> None:
    one = comfy()
    one.open("talking_avatar", seed=12, **SLOW)
    one.run()
    one.until("count('livetalk.chunk') >= 2")
    one.load()
    one.until("app.graph.nodes.length > 6")  # the page opens by itself what was open
    one.until(f"video({SINK})?.buffered.length > 0 || ended()")
    assert one.ask(f"video({SINK}).buffered.length && video({SINK}).buffered.start(0)") > 2
    one.until(f"video({SINK}).currentTime > video({SINK}).buffered.start(0) + 0.3")
    assert one.ask(f"video({SINK}).muted")  # nobody has clicked yet


def test_stopped(comfy: Opener) -> None:
    one = comfy()
    one.open("talking_avatar", seed=13, **SLOW)
    one.run()
    one.until(f"moves({SINK})")
    one.page.evaluate("() => app.api.interrupt()")
    one.until("ended()")
    one.until(f"video({SINK}).paused")
    assert one.ask("ended()") == "execution_interrupted" and status(one) == "Stopped"
    one.set("StreamChunkSampler", **SMALL)
    one.run()
    one.until(f"moves({SINK})")
    one.until("ended()")
    assert status(one) == "Done: 2.0 s of video"


_ASK_FOR_A_GPU = """() => {
  const loader = app.graph.nodes.find((node) => node.type === "LoadLiveTalkModel");
  loader.widgets.find((widget) => widget.name === "device").value = "cuda";
}"""


def test_failed(comfy: Opener) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU, so asking for one does not fail")
    one = comfy()
    one.open("talking_avatar")
    one.page.evaluate(_ASK_FOR_A_GPU)
    one.run()
    one.until("ended()")
    one.until(f"player({SINK}).textContent.includes('Failed')")
    assert one.ask("ended()") == "execution_error"


def test_two_sinks_play_in_turn_and_never_speak_together(comfy: Opener) -> None:
    one = comfy()
    one.open("compare_correction", seed=14, max_seconds=3.0)
    one.run()
    one.until(f"moves({SINK}) || moves({SECOND_SINK})")
    one.page.get_by_role("button", name="Turn the sound on").locator("visible=true").first.click()
    one.until(f"video({SINK}).videoWidth && video({SECOND_SINK}).videoWidth")
    one.until("count('livetalk.stream') === 2 && ended()")
    streams = one.ask("seen.events.filter((event) => event.name === 'livetalk.stream').map((event) => event.detail)")
    assert {stream["node"] for stream in streams} == {SINK, str(SECOND_SINK)}
    assert streams[0]["stream"] != streams[1]["stream"]
    assert one.ask(f"video({SINK}).muted + video({SECOND_SINK}).muted") == 1


def test_a_node_that_is_deleted_falls_silent(comfy: Opener, host: Any) -> None:
    one = comfy()
    one.open("talking_avatar", seed=15, **SLOW)
    one.run()
    one.until(f"moves({SINK})")
    one.page.evaluate(f"() => {{ seen.video = video({SINK}); app.graph.remove(app.graph.getNodeById({SINK})); }}")
    assert one.ask("seen.video.paused && !seen.video.src && !seen.video.isConnected")
    one.until("ended()")
    assert one.ask("ended()") == "execution_success"  # the run is the server's
    assert not [text for text in one.said if "livetalk" in text.lower()]


def test_another_tab_shows_nothing_of_it_and_the_first_still_has_it(comfy: Opener) -> None:
    one = comfy()
    one.open("talking_avatar", seed=17, **SLOW)
    one.run()
    one.until(f"moves({SINK})")
    one.open("long_speech")
    before = one.ask("count('livetalk.chunk')")
    one.until(f"count('livetalk.chunk') >= {before + 2} || ended()")
    assert one.ask(f"player({SINK}).dataset.state") == "idle" and status(one) == ""
    one.until("ended()")
    assert one.ask("ended()") == "execution_success"
    assert one.ask(f"player({SINK}).dataset.state") == "idle" and status(one) == ""
    one.switch("talking_avatar")
    one.until(f"video({SINK}).src.includes('/view?') && video({SINK}).videoWidth > 0")


def test_the_finished_file_can_be_watched_from_its_beginning(comfy: Opener) -> None:
    one = comfy()
    one.open("talking_avatar", seed=16, **SMALL)
    one.set("ParallelVAEDecode", live_view=False)
    one.run()
    one.until(f"video({SINK}).videoWidth > 0")
    one.until("ended()")
    assert one.ask("count('livetalk.stream')") == 0 and "/view?" in one.ask(f"video({SINK}).src")
    assert one.ask(f"[video({SINK}).paused, video({SINK}).currentTime]") == [True, 0]
    assert one.ask(f"video({SINK}).duration") == pytest.approx(2.0, abs=0.05)
    one.run()
    one.until("ended()")
    one.until(f"player({SINK}).textContent.includes('Done before')")
