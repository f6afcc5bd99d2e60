"""Speech with phoneme times from festival's voices, most of them cut from recordings of people.

The American kal is kept to evaluate on, as it is also flite's; the others may be trained on.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .espeak import Utterance
from .process import check_text, read_events, read_wave, run_synthesiser
from .visemes import PhonemeEvent

# Measured: edges of fricatives and closures lie this much after the ends of segments (smoothed joins).
_AMERICAN_DELAY_SECONDS = 0.010
_CLUSTERS_DELAY_SECONDS = 0.015

_SCRIPT = """
({voice})
(Parameter.set 'Duration_Stretch {stretch})
(set! spoken (utt.synth (Utterance Text "{text}")))
(utt.save.wave spoken "{wave}" 'riff)
(mapcar
 (lambda (s) (format t "%s:%f\\n" (item.name s) (item.feat s "end")))
 (utt.relation.items spoken 'Segment))
"""


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


# Each phone set spells some sounds its own way; what is missing here reads as IPA or ARPAbet.
_SAMPA: Final = _pairs("E=ɛ O=ɔ S=ʃ Z=ʒ J=ɲ L=ʎ T=θ D=ð N=ŋ tS=tʃ dZ=dʒ nf=ɱ")
_CZECH: Final = _pairs("c=ts c~=tʃ s~=ʃ z~=ʒ dz~=dʒ ch=x r~=ʒ r~*=ʃ n*=ŋ")
_FINNISH: Final = _SAMPA | _pairs("y=ʏ @=æ 7=ø &=ə y:=ʏ @:=æ 7:=ø")
_RUSSIAN: Final = _pairs("ii=i yy=ɨ y=ɨ uu=u ee=ɛ oo=ɔ ae=ɪ ay=ə ur=ʊ c=ts sch=ʃ h=x hh=x")
_AMERICAN: Final = _pairs("axr=ɚ el=l hv=h")


@dataclass(frozen=True)
class FestivalVoice:
    """One voice: its name in festival, Debian package, text language, own spellings of phonemes, delay in seconds."""

    name: str
    package: str
    language: str
    symbols: dict[str, str]
    delay: float = 0.0


KAL: Final = FestivalVoice("kal_diphone", "festvox-kallpc16k", "en", _AMERICAN, _AMERICAN_DELAY_SECONDS)
TRAINING_VOICES: Final = (
    FestivalVoice("ked_diphone", "festvox-kdlpc16k", "en", _AMERICAN, _AMERICAN_DELAY_SECONDS),
    FestivalVoice("lp_diphone", "festvox-italp16k", "it", _SAMPA),
    FestivalVoice("pc_diphone", "festvox-itapc16k", "it", _SAMPA),
    FestivalVoice("czech_dita", "festvox-czech-dita", "cs", _CZECH),
    FestivalVoice("czech_krb", "festvox-czech-krb", "cs", _CZECH),
    FestivalVoice("czech_machac", "festvox-czech-machac", "cs", _CZECH),
    FestivalVoice("czech_ph", "festvox-czech-ph", "cs", _CZECH),
    FestivalVoice("suo_fi_lj_diphone", "festvox-suopuhe-lj", "fi", _FINNISH),
    FestivalVoice("hy_fi_mv_diphone", "festvox-suopuhe-mv", "fi", _FINNISH),
    FestivalVoice("msu_ru_nsh_clunits", "festvox-ru", "ru", _RUSSIAN, _CLUSTERS_DELAY_SECONDS),
    FestivalVoice("upc_ca_ona_hts", "festvox-ca-ona-hts", "ca", _SAMPA),
)


def speak_festival(text: str, voice: FestivalVoice = KAL, stretch: float = 1.0) -> Utterance:
    """Speak `text`; `stretch` > 1 is slower.

    Raises:
        MissingDependencyError: festival or the voice is not installed.
        TrainingError: it cannot say this text.
        ConfigError: text with characters other than letters and simple punctuation.
    """
    check_text(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        script = Path(folder) / "speech.scm"
        filled = _SCRIPT.format(voice=f"voice_{voice.name}", stretch=f"{stretch:.3f}", text=text, wave=path)
        script.write_text(filled, encoding="utf-8")
        printed = run_synthesiser(["festival", "-b", str(script)], package=f"festival {voice.package}")
        samples = read_wave(path)
    events = read_events(printed.split(), delay=voice.delay)
    return Utterance(samples, tuple(_spelt_as_ipa(event, voice.symbols) for event in events))


def _spelt_as_ipa(event: PhonemeEvent, symbols: dict[str, str]) -> PhonemeEvent:
    plain = event.symbol.rstrip("0123456789") or event.symbol
    return event._replace(symbol=symbols.get(event.symbol, symbols.get(plain, event.symbol)))
