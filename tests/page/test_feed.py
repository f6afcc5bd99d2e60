"""What the player does with a stream of any length: in any portions, joined late, faster than it plays, out of room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from livetalk_core.media import FragmentWriter
from tools.comfy_page.browser import launched, new_page

pytestmark = [pytest.mark.page, pytest.mark.timeout(300)]
FPS, RATE, SECONDS = 25, 16_000, 12
SMALL_ROOM = ("--mse-video-buffer-size-limit-mb=1", "--mse-audio-buffer-size-limit-mb=1")

_HELP = """async () => {
  const { feed, Fragments } = await import("/extensions/livetalk/js/feed.js");
  const whole = new Uint8Array(await (await fetch("/pieces")).arrayBuffer());
  const video = Object.assign(document.createElement("video"), { muted: true });
  document.documentElement.append(video);
  Object.assign(window, { feed, Fragments, whole, video, most: 0, refused: 0, jumps: 0 });
  const append = SourceBuffer.prototype.appendBuffer;
  SourceBuffer.prototype.appendBuffer = function (piece) {
    try { append.call(this, piece); } catch (error) { refused += error.name === "QuotaExceededError"; throw error; }
  };
  window.cut = (portion) => {
    const fragments = new Fragments();
    const lengths = [];
    for (let at = 0; at < whole.length; at += portion)
      for (const piece of fragments.push(whole.subarray(at, at + portion))) lengths.push(piece.length);
    return lengths;
  };
  // Plays the head and the pieces from `first` on, made `speed` times as fast as they play.
  window.play = (lengths, first, speed, rate, limits) => {
    const begins = lengths.map((_, index) => lengths.slice(0, index).reduce((a, b) => a + b, 0));
    const order = [0, ...lengths.keys()].filter((index, place) => place === 0 || index >= first);
    const body = new ReadableStream({
      async pull(controller) {
        if (!order.length) return controller.close();
        const index = order.shift();
        const due = () => 2 + speed * video.currentTime >= index - first;
        for (let patience = 10; patience && !due(); patience--) await new Promise((done) => setTimeout(done, 100));
        controller.enqueue(whole.subarray(begins[index], begins[index] + lengths[index]));
        const { buffered } = video;
        let seconds = 0;
        for (let range = 0; range < buffered.length; range++) seconds += buffered.end(range) - buffered.start(range);
        most = Math.max(most, seconds);
      },
    });
    video.addEventListener("seeking", () => (jumps += 1));
    const begin = () => { video.playbackRate = rate; video.play(); };
    return feed(body, window.type, video, new AbortController().signal, begin, limits);
  };
}"""


Pieces = tuple[list[bytes], str]
"""Head and one fragment per second; and their MIME type."""


def film(seconds: int, brightest: int) -> Pieces:
    """Noise, which is the harder to compress the brighter it is."""
    writer = FragmentWriter(128, 128, FPS, RATE)
    made = [writer.head]
    generator = np.random.default_rng(0)
    for _ in range(seconds):
        frames = generator.integers(0, brightest, (FPS, 128, 128, 3), np.uint8)
        made.append(writer.write(frames, generator.uniform(-0.1, 0.1, RATE).astype(np.float32)))
    made.append(writer.finish())
    return [piece for piece in made if piece], writer.content_type


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    """A film of several megabytes."""
    return film(SECONDS, 256)


def opened(browser: Any, url: str, pieces: Pieces) -> Any:
    """A page of the host's that has nothing but the module."""
    page = new_page(browser)
    page.route("**/pieces", lambda route: route.fulfill(body=b"".join(pieces[0])))
    page.goto(url + "/extensions/livetalk/js/player.css")
    page.evaluate(_HELP)
    page.evaluate("(type) => { window.type = type; }", pieces[1])
    return page


@pytest.fixture
def page(host: Any, browser: Any, pieces: Pieces) -> Iterator[Any]:
    """The module in the shared browser."""
    made = opened(browser, host.url, pieces)
    yield made
    made.context.close()


def play(page: Any, lengths: list[int], first: int, speed: float, rate: float, **limits: float) -> None:
    """Feed pieces; the page waits until all have been taken."""
    page.evaluate("([...all]) => play(...all)", [lengths, first, speed, rate, limits])


def test_bytes_in_any_portions_are_cut_into_the_same_pieces(host: Any, browser: Any) -> None:
    small = film(2, 2)
    page = opened(browser, host.url, small)
    for portion in (1, 7, 1000, sum(map(len, small[0]))):
        assert page.evaluate("(portion) => cut(portion)", portion) == [len(piece) for piece in small[0]]
    page.context.close()


def test_a_late_joiner_begins_where_there_is_something_to_see(page: Any, pieces: Pieces) -> None:
    play(page, [len(piece) for piece in pieces[0]], 6, 100.0, 1.0, behind=60, ahead=120, resume=10)
    assert page.evaluate("() => video.buffered.start(0)") == pytest.approx(5.0, abs=0.1)
    page.wait_for_function("() => video.currentTime > 5.2")


def test_a_stream_that_is_made_faster_than_it_plays_stays_bounded(page: Any, pieces: Pieces) -> None:
    play(page, [len(piece) for piece in pieces[0]], 1, 3.0, 2.0, behind=1, ahead=2, resume=1)
    page.wait_for_function("() => video.ended")
    assert page.evaluate("() => most") <= 1 + 2 + 2  # and one more piece at either end
    assert page.evaluate("() => [jumps > 0, refused]") == [True, 0]
    assert page.evaluate("() => video.currentTime") > 0.6 * SECONDS


def test_a_full_buffer_loses_pieces_but_not_the_stream(host: Any, browser: Any, pieces: Pieces) -> None:
    assert sum(map(len, pieces[0])) > 2 * 2**20
    with launched(browser.browser_type, *SMALL_ROOM) as small:
        page = opened(small, host.url, pieces)
        play(page, [len(piece) for piece in pieces[0]], 1, 3.0, 2.0, behind=60, ahead=1000, resume=10)
        page.wait_for_function("() => video.ended")
        assert page.evaluate("() => refused") > 0
        assert page.evaluate("() => video.currentTime") > 0.6 * SECONDS
