"""Ten made-up spoken digits and four kinds of noise, from numpy alone.

A digit is a buzz (a voice's harmonics) through three resonances that glide, as vowels do. Voices
differ in pitch, in the length of their throat, in pace and in level, so no two sounds are alike.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float32]
NoiseKind = Literal["white", "pink", "hum", "babble"]

SAMPLING_RATE = 16_000
"""In Hz."""
# First and second resonance, in Hz, where a digit begins and where it ends.
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


def spoken(digits: str, rng: np.random.Generator, *, seconds: float) -> Sound:
    """Speak digits one after another, in a voice that the generator draws.

    Args:
        digits: ``0`` to ``9``.
        rng: Draws the voice.
        seconds: Length of the whole; the digits fill most of it.

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
        sound[start : start + length] = _digit(int(digit), length, pitch, throat, rng)
    level = _LEVEL / np.sqrt(np.mean(sound**2))
    return np.asarray(level * sound, dtype=np.float32)


def _digit(
    digit: int, length: int, pitch: float, throat: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """One digit, ``[length]``, of no particular level."""
    along = np.linspace(0, 1, length)
    tone = pitch * rng.uniform(0.95, 1.05) * (1 + rng.uniform(-0.15, 0.05) * along)
    voice = np.exp(2j * np.pi * np.cumsum(tone) / SAMPLING_RATE)
    # A resonance changes slowly: its strength is worked out at a few moments, and interpolated.
    moments = np.linspace(0, 1, 24)
    glides = [np.interp(moments, (0, 1), ends) * throat for ends in GLIDES[digit]]
    centres = np.array([*glides, np.full_like(moments, _THIRD * throat)])
    hertz = pitch * np.arange(1, int(4000 / pitch))[:, None, None]
    gains = (_STRENGTHS / (1 + ((hertz - centres) / _WIDTHS) ** 2)).sum(1)
    before = np.minimum((along * 23).astype(int), 22)
    after = along * 23 - before
    found, harmonic = np.zeros(length), np.ones(length, dtype=complex)
    for gain in gains:
        harmonic *= voice
        found += (gain[before] * (1 - after) + gain[before + 1] * after) * harmonic.imag
    edge = np.minimum(1, np.minimum(along, 1 - along) / 0.12)
    return np.asarray(found * edge * rng.uniform(0.8, 1.2))


def noise(kind: NoiseKind, length: int, rng: np.random.Generator) -> Sound:
    """Noise of root mean square 1.

    Args:
        kind: ``white``; ``pink``, weaker at high frequencies; ``hum``, a low buzz; ``babble``,
            four voices that say digits at once.
        length: Samples.
        rng: Draws it.

    Returns:
        ``[length]``.
    """
    found = np.zeros(length)
    if kind == "babble":
        for _ in range(4):
            digits = "".join(str(d) for d in rng.integers(0, 10, 3))
            voice = spoken(digits, rng, seconds=length / SAMPLING_RATE)
            found += np.roll(voice, rng.integers(length))
    elif kind == "hum":
        moments, tone = np.arange(length) / SAMPLING_RATE, rng.uniform(60, 240)
        for n in range(1, 20):
            found += np.sin(2 * np.pi * n * tone * moments + rng.uniform(0, 6)) / n
    else:
        found = rng.standard_normal(length)
        if kind == "pink":
            spectrum = np.fft.rfft(found)
            spectrum /= np.sqrt(np.arange(1, len(spectrum) + 1))
            found = np.fft.irfft(spectrum, length)
    return np.asarray(found / np.sqrt(np.mean(found**2)), dtype=np.float32)


def noisy(clean: Sound, kind: NoiseKind, snr: float, rng: np.random.Generator) -> Sound:
    """A sound with noise added.

    Args:
        clean: ``[samples]``.
        kind: Of the noise.
        snr: Power of the sound over that of the noise, in dB.
        rng: Draws the noise.

    Returns:
        ``[samples]``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clean = spoken("47", rng, seconds=1.0)
        >>> added = noisy(clean, "pink", -10, rng) - clean
        >>> round(float(10 * np.log10(np.mean(clean**2) / np.mean(added**2))), 2)
        -10.0
    """
    scale = np.sqrt(np.mean(clean.astype(np.float64) ** 2) / 10 ** (snr / 10))
    return np.asarray(clean + scale * noise(kind, len(clean), rng), dtype=np.float32)
