"""Recipe of the audio encoder: `python -m livetalk_core.training.audio_run --folder runs/audio`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from .speech_bank import SpeechBank, build_bank, load_bank, save_bank
from .train_audio import AudioTrainer, AudioTrainingConfig, export_audio_encoder

_logger = logging.getLogger("livetalk")


def bank_at(path: Path, utterances: int, seed: int, held_out: bool = False) -> SpeechBank:
    """The bank saved at `path`, or a new one built and saved there."""
    if path.exists():
        return load_bank(path)
    bank = build_bank(utterances, seed, held_out)
    save_bank(bank, path)
    return bank


def main(arguments: list[str] | None = None) -> None:
    """Build the speech bank if there is none, train for --minutes and export the encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where bank, checkpoint and result go")
    parser.add_argument("--minutes", type=float, default=AudioTrainingConfig.minutes)
    parser.add_argument(
        "--utterances", type=int, default=1500, help="sentences; each is kept in 2-3 versions"
    )
    parser.add_argument("--seed", type=int, default=AudioTrainingConfig.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="continue from the folder's checkpoint")
    options = parser.parse_args(arguments)

    _logger.setLevel(logging.INFO)
    _logger.addHandler(logging.StreamHandler(sys.stderr))
    torch.set_num_threads(options.threads)
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
