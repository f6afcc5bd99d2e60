"""`python -m livetalk_core.training.evaluate --model DIR --out DIR`: `livetalk evaluate DIR` for training scripts."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from ...errors import LiveTalkError
from .run import EvaluationConfig, evaluate_embedded
from .talk import DEFAULT_SEED, Manner

_logger = logging.getLogger("livetalk")


def main(arguments: list[str] | None = None) -> None:
    """Evaluate a model folder (without --model the one in the package) and log the report."""
    defaults = EvaluationConfig()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="model folder; default: the embedded model")
    parser.add_argument("--out", type=Path, required=True, help="folder for report and pictures")
    parser.add_argument("--clips", type=int, default=defaults.clips)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="longest clip")
    parser.add_argument("--rollout-seconds", type=float, default=defaults.rollout_seconds, help="0: none")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--steps", type=int, default=None, help="sampling steps; default: the model's own")
    parser.add_argument("--guidance", type=float, default=1.0, help="how much speech is exaggerated; 1: not")
    parser.add_argument("--audio-encoder", type=Path, default=None, help="as its training exported it")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    options = parser.parse_args(arguments)
    _logger.setLevel(logging.INFO)
    _logger.addHandler(logging.StreamHandler(sys.stderr))
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        config = EvaluationConfig(
            options.clips, options.seconds, options.rollout_seconds,
            seeds=tuple(range(options.seed, options.seed + options.seeds)),
            manner=Manner(options.steps, options.guidance),
        )  # fmt: skip
        evaluation = evaluate_embedded(options.model, options.out, config, options.audio_encoder, _logger.info)
    except LiveTalkError as error:
        _logger.error("%s", error)
        raise SystemExit(1) from error
    _logger.info("%s", evaluation.to_markdown())


if __name__ == "__main__":
    main()
