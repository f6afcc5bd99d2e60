"""Recipe of the audio encoder: `python -m livetalk_core.training.embedded.audio_run --folder runs/audio --minutes 50`.

With `--evaluate` the encoder in the folder is scored on voices it never heard instead (needs flite and festival).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..speech.bank import FESTIVAL_SHARE, SpeechBank, build_bank, load_bank, save_bank
from ..speech.held_out import evaluation_utterances
from ..trainer.ranks import join_ranks
from .audio_evaluation import score_voices
from .audio_model import load_reader, read_mouth
from .command_line import add_run_options, logger, reporting
from .timed_run import TimedRun
from .train_audio import AudioTask, AudioTraining


def bank_at(path: Path, utterances: int, seed: int) -> SpeechBank:
    """The bank saved at `path`, or a new one built and saved there."""
    if path.exists():
        return load_bank(path)
    bank = build_bank(utterances, seed, festival_share=FESTIVAL_SHARE)
    save_bank(bank, path)
    return bank


def evaluate(folder: Path) -> Path:
    """Score the exported encoder on the evaluation voices; returns the JSON file written.

    Raises:
        MissingDependencyError: a synthesiser is not installed.
        TrainingError: there is no encoder in `folder`.
    """
    reader = load_reader(folder / "audio_encoder")
    scores = score_voices(evaluation_utterances(), lambda spoken: read_mouth(reader, spoken.samples)[:, 0])
    path = folder / "scores.json"
    path.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    for voice, score in scores.items():
        logger.info("%s: %s", voice, ", ".join(f"{name} {value:.3f}" for name, value in score.items()))
    return path


def train(folder: Path, config: AudioTraining, utterances: int, resume: bool) -> None:
    """Build the speech bank if there is none, train, and export the encoder."""
    bank = bank_at(folder / "speech_bank.safetensors", utterances, config.seed)
    with join_ranks("cpu") as ranks:
        TimedRun(AudioTask(bank, folder, config), folder, ranks, config.pace, config).run(resume)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where bank, checkpoints and result go")
    parser.add_argument("--utterances", type=int, default=2600, help="sentences of a new bank, each in 2-3 versions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate", action="store_true", help="score the folder's encoder; train nothing")
    add_run_options(parser, AudioTraining.minutes, AudioTraining.seed)
    options = parser.parse_args(arguments)
    with reporting(options.threads):
        if options.evaluate:
            evaluate(options.folder)
        else:
            config = AudioTraining(minutes=options.minutes, seed=options.seed)
            train(options.folder, config, options.utterances, options.resume)


if __name__ == "__main__":
    main()
