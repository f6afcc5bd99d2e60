"""What a run is doing, in words; the page says the same in its reader's language (locales/*/main.json)."""

from __future__ import annotations

PHASES = {
    "checking": "Checking the inputs",
    "starting": "Starting the processes of the model",
    "loading": "Loading the model",
    "loading_vae": "Loading the VAE",
    "waiting": "Waiting until the run before has stopped",
    "preparing": "Preparing picture and prompt",
    "generating": "Making the first chunk",
    "recovering": "A process died and is being replaced",
    "finishing": "Finishing the file",
}
"""Name, as in `livetalk_core.production.observer` and `nodes.runner.View.phase` -> English."""
