"""What is installed, what is missing, what this machine can run, and the remedy for each thing found wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from .capability import Capability, capabilities
from .checks import CHECKS, Finding, model_finding, models_in


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what this machine can run."""

    findings: tuple[Finding, ...]
    capabilities: tuple[Capability, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong; notes do not count."""
        return all(finding.status != "problem" for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """The diagnosis as JSON types."""
        return {"format": "livetalk-doctor", "version": 1, "livetalk": __version__, "ok": self.ok, **asdict(self)}


MODEL_FOLDERS = (Path("models"), Path("models", "livetalk"))
"""Where models may lie if nobody says it: in the current folder, and in ComfyUI's."""


def diagnose(models: Sequence[Path] | None = None, timing: bool = True) -> Diagnosis:
    """Look at everything LiveTalk needs; nothing is changed.

    Args:
        models: Folders to look at, each a model or a folder of models; None: what is found in `MODEL_FOLDERS`.
        timing: Load the embedded model and time a few chunks; takes some seconds.
    """
    findings = [finding for check in CHECKS for finding in _guarded(check, check.__name__.strip("_").replace("_", " "))]
    for folder in MODEL_FOLDERS if models is None else models:
        look = partial(models_in, folder, required=models is not None)
        findings += _guarded(look, f"models in {folder}", "Name the model's own folder.")
    rows, problem = capabilities(timing)
    if problem is not None:
        fix = problem.hint or "Install LiveTalk again."
        findings.append(Finding("embedded model", "problem", problem.message, fix))
    elif timing:
        findings.append(Finding("embedded model", "ok", "loads and speaks"))
    else:
        findings.append(model_finding(None, "embedded model"))
    return Diagnosis(tuple(findings), tuple(rows))


def _guarded(
    check: Callable[[], Iterator[Finding]],
    subject: str,
    fix: str = "Install again: pip install --force-reinstall livetalk",
) -> Iterator[Finding]:
    """A check that fails is a finding of its own: the others still count."""
    try:
        yield from check()
    except Exception as error:
        yield Finding(subject, "problem", f"could not be checked: {error}", fix)
