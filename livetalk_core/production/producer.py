"""Make a video file: the entry that checks the files before the model libraries are imported."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .checks import check_files
from .interrupts import Interrupts
from .observer import Observer
from .report import Report
from .request import VideoRequest

if TYPE_CHECKING:
    from .backend import Backend


def produce(
    request: VideoRequest, observer: Observer | None = None, backend: Backend | None = None
) -> Report:
    """Make a video.

    An interruption (SIGINT, SIGTERM, the request's `stop`) ends it early with a playable file of what was made;
    `status` of the report says so. After an error nothing is left, except where a state was asked for: then what was
    made before it stays, because the state continues from there.

    Args:
        request: What to make.
        observer: Is told how it goes on.
        backend: From `make_backend`, with the model perhaps loaded already; stays open. Without one the model
            is let go at the end.

    Raises:
        LiveTalkError: of the kind that says what is wrong.
        KeyboardInterrupt, Stopped: interrupted before the model was loaded.
    """
    watching = observer or Observer()
    started = time.perf_counter()
    with Interrupts() as interrupts:
        watching.phase("checking")
        picture = check_files(request)
        with interrupts.held():
            # Late: these take seconds to import, and a mistyped path is reported at once.
            from .backend import Watch
            from .choose_backend import make_backend
            from .prepare import prepare
            from .shoot import shoot

        with prepare(request, picture) as job:
            watching.checked(job)
            used = backend or make_backend(request, job.dtype)
            try:
                return shoot(job, used, Watch(watching, request.stop), interrupts, started)
            finally:
                if backend is None:
                    used.close()
