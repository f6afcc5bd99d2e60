"""Make one synthesiser sound like many throats, rooms and microphones, every phoneme in its place."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import fftconvolve, resample_poly

from .espeak import SAMPLE_RATE, Utterance

Samples = NDArray[np.float32]

_WINDOW: Final = 512
_HOP: Final = 128
_LPC_ORDER: Final = 20
_SPEED_STEPS: Final = 40


def change_speed(utterance: Utterance, numerator: int) -> Utterance:
    """Play `utterance` at `numerator`/40 of its speed: pitch, formants and phoneme times change together."""
    samples = np.asarray(resample_poly(utterance.samples, _SPEED_STEPS, numerator), dtype=np.float32)
    scale = _SPEED_STEPS / numerator
    events = tuple(e._replace(start=e.start * scale, end=e.end * scale) for e in utterance.events)
    return Utterance(samples, events)


def augment_voice(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """A different speaker says the same: speed, vocal tract, excitation, room, spectrum and overload.

    Phoneme times stay exact (they are rescaled with the speed). The RMS of the result is 0.08.
    """
    spoken = change_speed(utterance, int(rng.integers(32, 51)))
    samples = spoken.samples
    if rng.random() < 0.9:
        samples = revoice(samples, rng)
    if rng.random() < 0.35:
        samples = add_room(samples, rng)
    if rng.random() < 0.8:
        samples = shape_spectrum(samples, rng)
    samples = unit_level(samples)
    if rng.random() < 0.2:
        drive = float(rng.uniform(2.0, 8.0))
        samples = unit_level(np.tanh(drive * samples / 0.25).astype(np.float32))
    return Utterance(samples, spoken.events)


def unit_level(samples: Samples, rms: float = 0.08) -> Samples:
    """Scale to the given root mean square; silence stays silence."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return samples if level < 1e-6 else (samples * (rms / level)).astype(np.float32)


def revoice(samples: Samples, rng: np.random.Generator) -> Samples:
    """Replace or keep the excitation and change the vocal tract, by linear prediction on short-time spectra.

    The spectral envelope (which carries the articulation) is bent in frequency, made sharper or flatter, at
    times blurred over time and given another loudness contour. Then it is driven by the original excitation,
    glottal-like pulses of another pitch contour, noise (a whisper) or a mixture.
    """
    spectra = _stft(samples)
    envelope = _lpc_envelope(samples, len(spectra))
    changed = _other_throat(envelope, rng)
    kind = rng.random()
    if kind < 0.35:
        driven = spectra * (changed / np.maximum(envelope, 1e-9))
    else:
        driven = _stft(_excitation(samples, spectra, kind, rng))[: len(spectra)] * changed
    return unit_level(_istft(driven, len(samples)))


def _other_throat(envelope: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Envelope [frames, bins] of the same articulation by another speaker with other habits.

    One synthesiser says a phoneme the same way every time. Formants and levels therefore also wander over time, or an
    encoder would learn that very way and hear little in other voices.
    """
    knots = np.array([0.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
    bend = rng.normal(0.0, 0.05, len(knots)) + np.log(rng.uniform(0.85, 1.18))
    wander = float(rng.uniform(0.0, 0.07)) * _wandering(len(envelope), len(knots), rng)
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2, envelope.shape[1])
    factors = np.exp((bend + wander) @ _hats(knots, frequencies))
    logarithm = np.log(_warp(envelope, factors) + 1e-7)
    # Formants stand out from the smoothed spectrum; how much differs between voices and synthesisers.
    smooth = gaussian_filter1d(logarithm, 24, axis=1, mode="nearest")
    logarithm = smooth + float(rng.uniform(0.6, 1.25)) * (logarithm - smooth)
    if rng.random() < 0.6:
        logarithm = gaussian_filter1d(logarithm, float(rng.uniform(0.3, 2.2)), axis=0, mode="nearest")
    if rng.random() < 0.7:
        contour = gaussian_filter1d(rng.standard_normal(len(envelope)), float(rng.uniform(8, 30)))
        logarithm += (float(rng.uniform(0.1, 0.7)) * contour / (contour.std() + 1e-9))[:, None]
    if rng.random() < 0.8:
        bands = np.linspace(0.0, SAMPLE_RATE / 2, 12)
        levels = float(rng.uniform(0.1, 0.7)) * _wandering(len(envelope), len(bands), rng)
        logarithm += levels @ _hats(bands, frequencies)
    return np.asarray(np.exp(logarithm))


def _wandering(frames: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """`count` independent smooth random curves of unit power over time, [frames, count]."""
    noise = rng.standard_normal((frames, count))
    curves = gaussian_filter1d(noise, float(rng.uniform(4, 20)), axis=0, mode="wrap")
    return np.asarray(curves / (np.sqrt(np.mean(curves**2)) + 1e-9))


def _hats(knots: NDArray[np.float64], frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix [knots, bins] that interpolates linearly from values at the knots."""
    return np.stack([np.interp(frequencies, knots, row) for row in np.eye(len(knots))])


def _excitation(samples: Samples, spectra: NDArray[np.complex128], kind: float, rng: np.random.Generator) -> Samples:
    noise = rng.standard_normal(len(samples))
    if kind < 0.50:
        return noise.astype(np.float32)
    pulses = _pulses(len(samples), rng)
    # Frames whose energy lies high are hissing: drive them with noise, or every "s" would buzz.
    power = np.abs(spectra) ** 2
    high = power[:, _WINDOW // 4 :].sum(axis=1) / (power.sum(axis=1) + 1e-9)
    hiss = np.clip((high - 0.15) / 0.3, 0.0, 1.0)
    mix = np.interp(np.arange(len(samples)), np.arange(len(hiss)) * _HOP, hiss)
    breath = float(rng.uniform(0.0, 0.7)) if kind > 0.8 else float(rng.uniform(0.0, 0.15))
    mix = np.maximum(mix, breath)
    return np.asarray((1 - mix) * pulses + mix * noise, dtype=np.float32)


def _pulses(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Band-limited pulse train of unit power whose pitch wanders; its spectral tilt is random."""
    knots = max(4, count // 4000)
    steps = np.interp(np.arange(count), np.linspace(0, count, knots), rng.standard_normal(knots))
    pitch = float(np.exp(rng.uniform(np.log(70.0), np.log(330.0))))
    contour = pitch * np.exp(float(rng.uniform(0.02, 0.3)) * steps)
    phase = np.cumsum(contour) / SAMPLE_RATE
    turn = phase - np.floor(phase)
    # exp(-k turn) falls from a sharp closure: k sets how much of the harmonics survive.
    wave = np.exp(-float(rng.uniform(6.0, 40.0)) * turn)
    wave = np.diff(wave, prepend=wave[0])
    return np.asarray(wave / (wave.std() + 1e-9))


def shape_spectrum(samples: Samples, rng: np.random.Generator) -> Samples:
    """Random smooth equaliser within +-12 dB and, at times, a telephone, muffled or thin sound."""
    return _apply_response(samples, random_response(len(samples), rng))


def random_response(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gain per bin of a real FFT over `count` samples, [count // 2 + 1]."""
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 40.0))
    knots = np.linspace(np.log2(40.0), np.log2(8000.0), int(rng.integers(4, 9)))
    decibels = np.interp(octaves, knots, rng.uniform(-12, 12, len(knots)) * rng.uniform(0.2, 1.0))
    kind = rng.random()
    low, high = 0.0, 1e9
    if kind < 0.15:
        low, high = float(rng.uniform(200, 400)), float(rng.uniform(2800, 3800))
    elif kind < 0.30:
        high = float(rng.uniform(1500, 4000))
    elif kind < 0.45:
        low = float(rng.uniform(80, 350))
    if low:
        decibels = decibels - 18 * np.maximum(0.0, np.log2(low) - octaves)
    if high < SAMPLE_RATE:
        decibels = decibels - 24 * np.maximum(0.0, octaves - np.log2(high))
    return np.asarray(10 ** (np.maximum(decibels, -60.0) / 20))


def _apply_response(samples: Samples, response: NDArray[np.float64]) -> Samples:
    return np.fft.irfft(np.fft.rfft(samples) * response, len(samples)).astype(np.float32)


def add_room(samples: Samples, rng: np.random.Generator) -> Samples:
    """Add a decaying diffuse tail; the direct sound keeps its place in time."""
    decay = float(rng.uniform(0.08, 0.5))
    times = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(times)) * np.exp(-6.9 * times / decay)
    tail[: int(0.002 * SAMPLE_RATE)] = 0.0
    wet = 10 ** (float(rng.uniform(-18, -3)) / 20)
    tail *= wet / (np.sqrt(np.sum(tail**2)) + 1e-9)
    return np.asarray(samples + fftconvolve(samples, tail)[: len(samples)], dtype=np.float32)


def coloured_noise(count: int, rng: np.random.Generator) -> Samples:
    """White to brownish noise of unit power, [count] float32."""
    white = rng.standard_normal(count).astype(np.float32)
    slope = float(rng.uniform(0.0, 1.2))
    if slope < 0.3:
        return white
    bins = np.maximum(np.arange(count // 2 + 1), 8)
    coloured = np.fft.irfft(np.fft.rfft(white) * bins ** (-slope), count)
    return np.asarray(coloured / (coloured.std() + 1e-12), dtype=np.float32)


def _frames(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    padded = np.pad(samples.astype(np.float64), (_WINDOW // 2, _WINDOW))
    count = len(samples) // _HOP + 1
    view = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[: count * _HOP : _HOP]
    return np.asarray(view * np.hanning(_WINDOW + 1)[:-1])


def _stft(samples: NDArray[np.floating]) -> NDArray[np.complex128]:
    return np.asarray(np.fft.rfft(_frames(samples), axis=1))


def _istft(spectra: NDArray[np.complex128], count: int) -> Samples:
    pieces = np.fft.irfft(spectra, _WINDOW, axis=1)
    out = np.zeros(len(pieces) * _HOP + _WINDOW)
    for part in range(_WINDOW // _HOP):
        block = pieces[:, part * _HOP : (part + 1) * _HOP].reshape(-1)
        out[part * _HOP : part * _HOP + len(block)] += block
    # Hann windows at a quarter of their length add up to 2.
    return (out[_WINDOW // 2 : _WINDOW // 2 + count] / 2).astype(np.float32)


def _lpc_envelope(samples: Samples, frames: int) -> NDArray[np.float64]:
    """Magnitude of the all-pole fit per frame, [frames, bins]; autocorrelation method, Levinson recursion."""
    emphasised = np.append(samples[:1], samples[1:] - 0.9 * samples[:-1])
    windows = _frames(emphasised)[:frames]
    power = np.abs(np.fft.rfft(windows, 2 * _WINDOW, axis=1)) ** 2
    correlation = np.fft.irfft(power, axis=1)[:, : _LPC_ORDER + 1]
    correlation[:, 0] = correlation[:, 0] * 1.0005 + 1e-7
    coefficients = np.zeros((len(windows), _LPC_ORDER + 1))
    coefficients[:, 0] = 1.0
    error = correlation[:, 0].copy()
    for order in range(1, _LPC_ORDER + 1):
        reflection = -np.sum(coefficients[:, :order] * correlation[:, order:0:-1], axis=1) / error
        previous = coefficients[:, : order + 1].copy()
        coefficients[:, : order + 1] += reflection[:, None] * previous[:, ::-1]
        error *= np.maximum(1 - reflection**2, 1e-6)
    inverse = np.abs(np.fft.rfft(coefficients, _WINDOW, axis=1))
    tilt = np.abs(1 - 0.9 * np.exp(-2j * np.pi * np.arange(_WINDOW // 2 + 1) / _WINDOW))
    return np.asarray(np.sqrt(error)[:, None] / (inverse + 1e-6) / tilt)


def _warp(envelope: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretch the frequency axis [frames, bins] by `factor` of the same shape (> 1: formants move up)."""
    bins = envelope.shape[1]
    source = np.clip(np.arange(bins) / factor, 0, bins - 1)
    floor = np.minimum(source.astype(np.int64), bins - 2)
    share = source - floor
    low, high = (np.take_along_axis(envelope, index, axis=1) for index in (floor, floor + 1))
    return np.asarray(low * (1 - share) + high * share)
