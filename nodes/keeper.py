"""The model between two runs: kept ready, replaced when another is asked for, given back when somebody says so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from .recipes import ModelRecipe

if TYPE_CHECKING:
    from livetalk_core.production.backend import Backend

logger = logging.getLogger("livetalk")
_POLL_SECONDS = 0.05


class Keeper:
    """Holds at most one model; one run at a time uses it. Thread-safe.

    A call of `release` or a run with another recipe lets it go.
    """

    def __init__(self) -> None:
        self._use = threading.Lock()
        self._state = threading.Lock()
        self._recipe: ModelRecipe | None = None
        self._backend: Backend | None = None
        self._release_due = False

    @contextmanager
    def using(self, recipe: ModelRecipe, make: Callable[[], Backend], wait: Callable[[], None]) -> Iterator[Backend]:
        """The model of a recipe, for this run alone.

        Args:
            recipe: What is needed.
            make: Makes its backend, where it is not the one at hand.
            wait: Called again and again while another run still uses the model; may raise.
        """
        while not self._use.acquire(timeout=_POLL_SECONDS):
            wait()
        try:
            yield self._backend_for(recipe, make)
        finally:
            with self._state:
                if self._release_due:
                    self._drop()
                self._use.release()

    def holds(self, recipe: ModelRecipe) -> bool:
        """Whether the model of this recipe is ready, so that no memory has to be found for it."""
        with self._state:
            return self._recipe == recipe and self._is_alive()

    def release(self) -> str:
        """Let the model go, now or as soon as the run that uses it has ended; says which."""
        with self._state:
            if self._backend is None:
                return "nothing was loaded"
            if self._use.acquire(blocking=False):
                self._drop()
                self._use.release()
                return "released"
            self._release_due = True
            return "released when the running video is done"

    def status(self) -> dict[str, Any]:
        """What is held, as JSON types."""
        with self._state:
            recipe, backend = self._recipe, self._backend
            facts: dict[str, Any] = {"busy": self._use.locked(), "model": None}
            if recipe is not None and backend is not None and self._is_alive():
                facts["model"] = recipe.name
                facts["gpus"] = recipe.gpus
                facts["processes"] = list(backend.worker_pids)
            return facts

    def _backend_for(self, recipe: ModelRecipe, make: Callable[[], Backend]) -> Backend:
        with self._state:
            if self._backend is None or self._recipe != recipe:
                self._drop()
                self._backend, self._recipe = make(), recipe
            return self._backend

    def _is_alive(self) -> bool:
        """Idle processes end by themselves after a while."""
        pids = () if self._backend is None else self._backend.worker_pids
        return bool(pids) and all(psutil.pid_exists(pid) for pid in pids)

    def _drop(self) -> None:
        self._release_due = False
        backend, self._backend, self._recipe = self._backend, None, None
        if backend is not None:
            backend.close()
            logger.info("the model was released")


KEEPER = Keeper()
"""The model that makes streams."""

VAE_KEEPER = Keeper()
"""The VAE that decodes latents of other models."""


def release_all() -> str:
    """Let go of everything that this process holds; says what happened."""
    return f"model: {KEEPER.release()}; VAE: {VAE_KEEPER.release()}"
