"""Sockets between the ranks of one host: what arrives, in which order, and what is said when a peer is gone."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetalk_core.errors import ParallelError
from livetalk_core.parallel.local_links import LocalLinks, open_links

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(sys.platform == "win32", reason="Python has no Unix sockets there; ranks talk over gloo"),
]

MEGABYTE = 1 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder whose path is short enough for a socket, whatever the test is called."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def pair(stack: ExitStack, timeout: float = 20.0) -> tuple[LocalLinks, LocalLinks]:
    """Two ranks that are connected."""
    left, right = (stack.enter_context(end) for end in socket.socketpair())
    return LocalLinks(0, {1: left}, timeout), LocalLinks(1, {0: right}, timeout)


def data(size: int, seed: int = 0) -> memoryview:
    """Bytes that differ with the seed."""
    return memoryview(np.random.default_rng(seed).bytes(size)).cast("B")


def room(size: int) -> memoryview:
    """Memory to receive into."""
    return memoryview(bytearray(size))


def together(*works: Callable[[], object]) -> list[object]:
    """Run each in a thread, as ranks run in processes; their results, or the first error."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(work) for work in works]]


@given(sizes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), max_size=8), late=st.booleans())
def test_messages_arrive_in_order_whatever_their_sizes_and_whenever_they_are_awaited(
    sizes: list[tuple[int, int]], late: bool
) -> None:
    """Several exchanges may be under way; waiting for the last one brings the earlier ones, too."""
    with ExitStack() as stack:
        links = pair(stack)

        def rank(number: int) -> bool:
            theirs = [room(size[1 - number]) for size in sizes]
            waits = [
                links[number].exchange({1 - number: data(size[number], 2 * turn + number)}, {1 - number: theirs[turn]})
                for turn, size in enumerate(sizes)
            ]
            for wait in reversed(waits) if late else waits:
                wait()
            return all(
                theirs[turn] == data(size[1 - number], 2 * turn + 1 - number) for turn, size in enumerate(sizes)
            )

        assert together(lambda: rank(0), lambda: rank(1)) == [True, True]


def test_two_ranks_that_send_more_than_the_system_holds_do_not_wait_for_each_other() -> None:
    """Both send first and receive then; 64 MiB each way fit no socket."""
    with ExitStack() as stack:
        links = pair(stack)
        received = [room(64 * MEGABYTE) for _ in links]

        def rank(number: int) -> None:
            links[number].exchange({1 - number: data(64 * MEGABYTE, number)}, {1 - number: received[number]})()

        together(lambda: rank(0), lambda: rank(1))
        assert received[0] == data(64 * MEGABYTE, 1) and received[1] == data(64 * MEGABYTE, 0)


def test_a_rank_that_left_is_named_at_once_but_what_it_sent_before_arrives() -> None:
    """Its last message is complete; only the one behind it is missing."""
    with ExitStack() as stack:
        left, right = socket.socketpair()
        stack.enter_context(left)
        ours, theirs = LocalLinks(0, {3: left}, 20.0), LocalLinks(3, {0: right}, 20.0)
        theirs.exchange({0: data(100)}, {})()
        right.close()
        last = room(100)
        ours.exchange({}, {3: last})()
        assert last == data(100)
        with pytest.raises(ParallelError, match=r"Rank 0 lost rank 3 \(it left\)") as caught:
            ours.exchange({}, {3: room(1)})()
        assert caught.value.details["peer"] == 3
        with pytest.raises(ParallelError, match="Rank 0 lost rank 3"):
            ours.exchange({3: data(100)}, {})()


def test_a_rank_that_hangs_is_named_after_the_time_that_was_given() -> None:
    """Nothing comes, and nobody is gone."""
    with ExitStack() as stack:
        ours, _ = pair(stack, timeout=0.05)
        with pytest.raises(ParallelError, match="Rank 0 waited 0 s in vain for rank 1"):
            ours.exchange({}, {1: room(1)})()


def test_three_ranks_meet_and_leave_nothing_behind(folder: Path) -> None:
    """Each sends its number to the others; the sockets are gone as soon as all have met."""
    barrier = threading.Barrier(3)

    def rank(number: int) -> list[int]:
        def agree(flag: bool) -> bool:
            barrier.wait(20)
            return flag

        with open_links(folder / "rendezvous-1", number, 3, 20.0, agree) as links:
            assert links is not None
            others = [other for other in range(3) if other != number]
            received = {other: room(1) for other in others}
            links.exchange(dict.fromkeys(others, memoryview(bytes([number]))), received)()
            barrier.wait(20)
            assert not list(folder.iterdir())
            return [received[other][0] for other in others]

    assert together(*(lambda number=number: rank(number) for number in range(3))) == [[1, 2], [0, 2], [0, 1]]


def test_where_a_socket_cannot_stand_all_ranks_do_without(folder: Path) -> None:
    """A path that is too long, or a rank elsewhere that cannot: no links for anybody, and nothing left behind."""
    asked = []
    with open_links(folder / ("long" * 50), 0, 2, 1.0, lambda flag: bool(asked.append(flag))) as links:
        assert links is None
    with open_links(folder / "short", 0, 2, 1.0, lambda flag: bool(asked.append(flag))) as links:
        assert links is None
    assert asked == [False, True]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("said", [b"", (0).to_bytes(4, "big"), (7).to_bytes(4, "big")])
def test_whoever_does_not_say_which_of_the_others_it_is_is_not_taken_for_one(folder: Path, said: bytes) -> None:
    """A rank that died as it connected, and numbers that cannot be."""

    def come(flag: bool) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.connect(str(folder / "rendezvous.0"))
            stranger.sendall(said)
        return flag

    with (
        pytest.raises(ParallelError, match="Rank 0 could not meet the others"),
        open_links(folder / "rendezvous", 0, 2, 1.0, come),
    ):
        pass
    assert not list(folder.iterdir())


def test_a_rank_that_does_not_come_is_said_and_no_socket_stays(folder: Path) -> None:
    """All have listened, but rank 0 has ended before rank 1 connects."""
    with (
        pytest.raises(ParallelError, match="Rank 1 could not meet the others"),
        open_links(folder / "rendezvous", 1, 2, 1.0, lambda flag: flag),
    ):
        pass
    assert not list(folder.iterdir())
