"""Synthetic spoken digits and four kinds of noise, made with numpy.

A digit is a harmonic tone filtered by three resonances that move over time, as in a vowel. Voices
differ in pitch, resonance scale, pace and level, so that no two sounds are equal.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float32]
NoiseKind = Literal["white", "pink", "hum", "babble"]

SAMPLING_RATE = 16_000
"""In Hz."""
# First and second resonance of each digit in Hz, at its start and at its end.
GLIDES: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = (
    ((300, 700), (2200, 1000)),
    ((650, 450), (1100, 1700)),
    ((300, 350), (1900, 850)),
    ((400, 300), (1400, 2300)),
    ((550, 500), (850, 800)),
    ((750, 350), (1300, 2100)),
    ((350, 500), (2000, 1900)),
    ((550, 650), (1800, 1300)),
    ((500, 300), (1800, 2350)),
    ((750, 400), (1250, 900)),
)
_THIRD = 2900
_STRENGTHS = np.array([1.0, 0.7, 0.3])[:, None]
_WIDTHS = np.array([70.0, 100.0, 150.0])[:, None]
_LEVEL = 0.1
"""Root mean square of a clean sound."""


def synthesize_digits(digits: str, rng: np.random.Generator, *, seconds: float) -> Sound:
    """Synthesize a voice that says digits one after another.

    Args:
        digits: Characters from ``0`` to ``9``.
        rng: Draws the voice and the pauses.
        seconds: Length of the sound in seconds. The digits fill most of it.

    Returns:
        ``[seconds * 16000]``, mono, root mean square 0.1.
    """
    total = int(seconds * SAMPLING_RATE)
    pitch, throat = rng.uniform(90, 230), rng.uniform(0.92, 1.08)
    each = total // len(digits)
    sound = np.zeros(total, dtype=np.float64)
    for place, digit in enumerate(digits):
        length = int(each * rng.uniform(0.65, 0.9))
        start = place * each + int(rng.integers(0, each - length + 1))
        sound[start : start + length] = _synthesize_digit(int(digit), length, pitch, throat, rng)
    level = _LEVEL / np.sqrt(np.mean(sound**2))
    return np.asarray(level * sound, dtype=np.float32)


def _synthesize_digit(
    digit: int, length: int, pitch: float, throat: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Synthesize one digit, ``[length]``, at an arbitrary level."""
    along = np.linspace(0, 1, length)
    tone = pitch * rng.uniform(0.95, 1.05) * (1 + rng.uniform(-0.15, 0.05) * along)
    voice = np.exp(2j * np.pi * np.cumsum(tone) / SAMPLING_RATE)
    # A resonance changes slowly, so its gain is computed at 24 points and interpolated.
    moments = np.linspace(0, 1, 24)
    glides = [np.interp(moments, (0, 1), ends) * throat for ends in GLIDES[digit]]
    centers = np.array([*glides, np.full_like(moments, _THIRD * throat)])
    hertz = pitch * np.arange(1, int(4000 / pitch))[:, None, None]
    gains = (_STRENGTHS / (1 + ((hertz - centers) / _WIDTHS) ** 2)).sum(1)
    before = np.minimum((along * 23).astype(int), 22)
    after = along * 23 - before
    sound, harmonic = np.zeros(length), np.ones(length, dtype=complex)
    for gain in gains:
        harmonic *= voice
        sound += (gain[before] * (1 - after) + gain[before + 1] * after) * harmonic.imag
    edge = np.minimum(1, np.minimum(along, 1 - along) / 0.12)
    return np.asarray(sound * edge * rng.uniform(0.8, 1.2))


def make_noise(kind: NoiseKind, length: int, rng: np.random.Generator) -> Sound:
    """Make noise with root mean square 1.

    Args:
        kind: ``white``, ``pink`` (weaker at high frequencies), ``hum`` (a low tone with harmonics)
            or ``babble`` (four voices that say digits at the same time).
        length: Number of samples.
        rng: Draws the noise.

    Returns:
        ``[length]``.
    """
    sound = np.zeros(length)
    if kind == "babble":
        for _ in range(4):
            digits = "".join(str(d) for d in rng.integers(0, 10, 3))
            voice = synthesize_digits(digits, rng, seconds=length / SAMPLING_RATE)
            sound += np.roll(voice, rng.integers(length))
    elif kind == "hum":
        moments, tone = np.arange(length) / SAMPLING_RATE, rng.uniform(60, 240)
        for n in range(1, 20):
            sound += np.sin(2 * np.pi * n * tone * moments + rng.uniform(0, 6)) / n
    else:
        sound = rng.standard_normal(length)
        if kind == "pink":
            spectrum = np.fft.rfft(sound)
            spectrum /= np.sqrt(np.arange(1, len(spectrum) + 1))
            sound = np.fft.irfft(spectrum, length)
    return np.asarray(sound / np.sqrt(np.mean(sound**2)), dtype=np.float32)


def add_noise(clean: Sound, kind: NoiseKind, snr: float, rng: np.random.Generator) -> Sound:
    """Add noise to a sound.

    Args:
        clean: ``[samples]``.
        kind: Kind of the noise.
        snr: Ratio of the sound's power to the noise's power, in dB.
        rng: Draws the noise.

    Returns:
        ``[samples]``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = synthesize_digits("47", rng, seconds=1.0)
        >>> added = add_noise(clean, "pink", -10, rng) - clean
        >>> round(float(10 * np.log10(np.mean(clean**2) / np.mean(added**2))), 2)
        -10.0
    """
    scale = np.sqrt(np.mean(clean.astype(np.float64) ** 2) / 10 ** (snr / 10))
    return np.asarray(clean + scale * make_noise(kind, len(clean), rng), dtype=np.float32)
