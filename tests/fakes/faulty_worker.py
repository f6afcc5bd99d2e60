"""A real rank with scripted faults: option `faults` as for the fake one; see `faults.fail_at`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import msgspec

from fakes.faults import Injector
from livetalk_core.daemon.rank_interface import Result, RunContext
from livetalk_core.daemon.worker import log_to_stderr
from livetalk_core.daemon.worker_link import WorkerLink
from livetalk_core.daemon.worker_loop import WorkerLoop, read_worker_config
from livetalk_core.daemon.worker_messages import Phase


class FaultyContext(RunContext):
    """Breaks where the rank says it is: step s before that step, the step after the last one in the decoding."""

    injector: Injector

    def at(self, phase: Phase, step: int = 0, steps: int = 0, *, completed: bool = False) -> None:
        super().at(phase, step, steps, completed=completed)
        if phase in ("step", "decode"):
            self.injector.at(self.command.chunk, step)


def faulty_engine(config: Any, life: ExitStack, injector: Injector, groups: Any = None) -> Any:
    """The rank's engine with faults in it."""
    from fakes.real import CONFIG
    from livetalk_core.daemon.rank_engine import ModelRankEngine
    from livetalk_core.engine import Engine
    from livetalk_core.sampling import PhiloxNoise

    class FaultyNoise(PhiloxNoise):
        """Other numbers, or none, in the chunk of a scripted fault."""

        def draw(self, chunk: int, index: int, shape: tuple[int, ...]) -> Any:
            drawn = super().draw(chunk, index, shape)
            if injector.hits("nan", chunk):
                return drawn * float("nan")
            return drawn + 1 if injector.hits("other_noise", chunk) else drawn

    class FaultyEngine(ModelRankEngine):
        """See `ModelRankEngine`."""

        def engine(self) -> Engine:
            return Engine(super().engine().bundle, FaultyNoise(CONFIG.seed) if injector.noisy else None)

        def run(self, context: RunContext) -> Result:
            context.__class__, context.injector = FaultyContext, injector  # type: ignore[attr-defined]
            return super().run(context)

        def leave_together(self, context: RunContext, step: int) -> None:
            if not injector.hits("skip_collective", context.command.chunk, step):
                super().leave_together(context, step)

    return FaultyEngine(config, life, groups)


def main() -> int:
    """Entry of the process."""
    config = read_worker_config()
    injector = Injector(config.options.get("faults", ""), config.rank, config.generation)
    options = {name: value for name, value in config.options.items() if name != "faults"}
    log_to_stderr()
    link = WorkerLink(config)
    with ExitStack() as life:
        WorkerLoop(link, faulty_engine(msgspec.structs.replace(config, options=options), life, injector)).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
