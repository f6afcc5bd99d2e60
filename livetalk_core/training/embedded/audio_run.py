"""Recipe of the audio encoder: `python -m livetalk_core.training.embedded.audio_run --folder runs/audio --minutes 50`.

With `--evaluate` the encoder in the folder is scored on voices it never heard instead (needs flite and festival).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from ..speech.bank import FESTIVAL_SHARE, SpeechBank, build_bank, load_bank, save_bank
from ..speech.held_out import evaluation_utterances
from .audio_evaluation import score_voices
from .train_audio import AudioTrainer, AudioTrainingConfig, export_audio_encoder, load_reader, read_mouth

_logger = logging.getLogger("livetalk")


def bank_at(path: Path, utterances: int, seed: int, held_out: bool = False) -> SpeechBank:
    """The bank saved at `path`, or a new one built and saved there."""
    if path.exists():
        return load_bank(path)
    bank = build_bank(utterances, seed, held_out, festival_share=0.0 if held_out else FESTIVAL_SHARE)
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
        _logger.info("%s: %s", voice, ", ".join(f"{name} {value:.3f}" for name, value in score.items()))
    return path


def main(arguments: list[str] | None = None) -> None:
    """Build the speech bank if there is none, train for --minutes and export the encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where bank, checkpoint and result go")
    parser.add_argument("--minutes", type=float, default=AudioTrainingConfig.minutes)
    parser.add_argument("--utterances", type=int, default=2600, help="sentences; each is kept in 2-3 versions")
    parser.add_argument("--seed", type=int, default=AudioTrainingConfig.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="continue from the folder's checkpoint")
    parser.add_argument("--evaluate", action="store_true", help="score the folder's encoder; train nothing")
    options = parser.parse_args(arguments)

    _logger.setLevel(logging.INFO)
    _logger.addHandler(logging.StreamHandler(sys.stderr))
    torch.set_num_threads(options.threads)
    if options.evaluate:
        evaluate(options.folder)
        return
    bank = bank_at(options.folder / "speech_bank.safetensors", options.utterances, options.seed)
    bank_at(options.folder / "held_out_bank.safetensors", 80, options.seed, held_out=True)
    config = AudioTrainingConfig(minutes=options.minutes, seed=options.seed)
    trainer = AudioTrainer(bank, options.folder, config)
    if options.resume:
        trainer.resume()
    reader = trainer.run()
    export_audio_encoder(reader, options.folder / "audio_encoder")
    _logger.info("audio encoder written after %d steps", trainer.step)


if __name__ == "__main__":
    main()
