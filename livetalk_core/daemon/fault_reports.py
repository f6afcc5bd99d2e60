"""What went wrong with a rank, as the one error that its user sees: who, where, when, and where to read on."""

from __future__ import annotations

import signal

from ..errors import DeadlineError, LiveTalkError, WorkerDiedError, WorkerFailedError, WorkerHungError
from .process_group import Rank
from .wire import last_words, redact, to_error
from .worker_messages import Failure

_PREPARING = ("starting", "loading", "compiling")


def at_rank(rank: Rank, report: Failure) -> LiveTalkError:
    """The error that a rank reported, with its place."""
    error = to_error(report.error)
    beat = rank.progress.beat
    place = {"rank": rank.number, "phase": beat.phase, "chunk": report.chunk, "log": redact(str(rank.log))}
    # Rank 0 speaks for the ranks on other hosts.
    who = f"Rank {error.details.get('rank', rank.number)}"
    if host := error.details.get("host"):
        who += f" on host {host}"
    where = f" in chunk {report.chunk}" if report.stream else ""
    if isinstance(error, WorkerFailedError):
        error = WorkerFailedError(f"{who} failed{where}: {error.message}.", error.hint, **error.details)
    elif host:
        error.message = f"{who} failed{where}: {error.message}"
    error.details = {**place, **error.details}
    return error


def death(rank: Rank, *, starting: bool) -> WorkerDiedError:
    """A rank's process has ended.

    Args:
        rank: Whose it was.
        starting: It never got ready, so that the end of its log says most.
    """
    code = rank.process.returncode or 0
    how, facts, hint = f"ended with exit code {code}", _facts(rank), ""
    if code < 0:
        facts["signal"] = -code
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})"
        if -code == signal.SIGKILL:
            hint = "If nobody did this, the system may have run out of memory. "
    if starting and (words := last_words(rank.log_tail())):
        how += f", {_where(rank)}, and wrote last: {words.rstrip('.')}"
    else:
        how += f", {_where(rank)}"
    return WorkerDiedError(f"Rank {rank.number} {how}.", f"{hint}Its log is {facts['log']}.", **facts)


def hang(rank: Rank, setting: str, limit: float) -> LiveTalkError:
    """A rank has broken a deadline: the setting `setting` of `limit` seconds."""
    facts = {**_facts(rank), "setting": setting, "seconds": limit}
    phase = rank.progress.beat.phase
    if phase in _PREPARING:
        return DeadlineError(
            f"Rank {rank.number} is not done with {phase} after {limit:g} s.",
            f"Its log is {facts['log']}; the limit is the setting {setting}.", **facts,
        )  # fmt: skip
    return WorkerHungError(
        f"Rank {rank.number} hangs: no progress for {limit:g} s, {_where(rank)}.",
        f"Where it stood is in {facts['log']}; the limit is the setting {setting}.", **facts,
    )  # fmt: skip


def _where(rank: Rank) -> str:
    beat = rank.progress.beat
    return f"in phase {beat.phase}, chunk {beat.chunk}, step {beat.step}"


def _facts(rank: Rank) -> dict[str, int | float | str]:
    beat = rank.progress.beat
    log = redact(str(rank.log))
    return {"rank": rank.number, "phase": beat.phase, "chunk": beat.chunk, "step": beat.step, "log": log}
