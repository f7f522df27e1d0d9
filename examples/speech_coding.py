"""Speech coding: spectral envelopes of speech in 12 to 40 bits, by product, residual and additive codes.

    apt-get install asterisk-core-sounds-en-wav     # Debian: 25 minutes of one speaker's telephone prompts
    python examples/speech_coding.py /usr/share/asterisk/sounds/en_US_f_Allison --plot speech.png
    python examples/speech_coding.py FOLDER --pesq 20                           # and how it sounds: pip install pesq
    python examples/speech_coding.py                # no folder: espeak-ng speaks; without it, a synthetic signal

After figure 1 of Vali and Bäckström (ICASSP 2023). Every 20 ms a frame's envelope is a linear predictor (of order 10 at
8 kHz), coded as line spectral frequencies by M = 4 codebooks of 3 to 10 bits. Prints how far the decoded envelopes are
from the true ones: log-spectral distortion in dB, and the share of frames beyond 2 dB. Coders call an average of 1 dB
with less than 2 % beyond 2 dB transparent (Paliwal and Atal, 1993). A fifth of the recordings is kept for the test.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.signal import lfilter, lfiltic

import annvq
from annvq.benchmarks import plot

CODES = {"additive": "AVQ", "residual": "RVQ", "product": "PVQ"}
SENTENCES = (
    "The birch canoe slid on the smooth planks.", "Glue the sheet to the dark blue background.",
    "It is easy to tell the depth of a well.", "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.", "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.", "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.", "A large size in stockings is hard to sell.",
)  # fmt: skip  # of the Harvard sentences, IEEE 1969


def recordings(folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    """The signals of a folder's 16-bit mono WAV files, float64 (n,), and their sampling rates."""
    for path in sorted(folder.rglob("*.wav")):
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise ValueError(f"{path} must be mono, 16 bits a sample")
            yield np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float), file.getframerate()


def spoken() -> Iterator[tuple[np.ndarray, int]]:
    """Sentences in several of espeak-ng's voices: synthetic speech, easier to code than people's."""
    voices = [f"{language}+{variant}" for language in ("en-gb", "en-us") for variant in ("m1", "m3", "f2", "f4")]
    with tempfile.TemporaryDirectory() as folder:
        for i, (voice, sentence) in enumerate((v, s) for s in SENTENCES for v in voices):
            subprocess.run(["espeak-ng", "-v", voice, "-w", f"{folder}/{i:03}.wav", sentence], check=True)
        yield from recordings(Path(folder))


def synthetic(seconds: float, seed: int = 0) -> Iterator[tuple[np.ndarray, int]]:
    """Pulses and noise through resonances that move: no speech, but envelopes of the same kind."""
    rng, rate, step = np.random.default_rng(seed), 8000, 160
    for _ in range(10):
        count = int(seconds * rate / 10 / step)
        centres = np.array([500, 1500, 2500, 3300]) + np.cumsum(rng.normal(size=(count, 4)) * 40, axis=0)
        signal, memory = np.zeros(count * step), np.zeros(8)
        for i, (row, voiced) in enumerate(zip(np.clip(centres, 200, 3700), rng.random(count) < 0.7, strict=True)):
            poles = 0.96 * np.exp(2j * np.pi * np.sort(row) / rate)
            a = np.poly(np.concatenate([poles, poles.conj()])).real
            drive = rng.normal(size=step) * (0.1 if voiced else 1.0)
            drive[:: rng.integers(50, 90)] += 5.0 * voiced
            for n in range(step):
                signal[i * step + n] = drive[n] - memory @ a[1:]
                memory = np.concatenate([signal[i * step + n : i * step + n + 1], memory[:-1]])
        yield signal, rate


def predictors(signal: np.ndarray, rate: int, *, silent: bool = False) -> np.ndarray:
    """Linear predictors A(z) = 1 + a_1/z + … of frames, (n, p + 1); of silent ones too where ``silent`` says so.

    Autocorrelation of 30 ms under a Hamming window every 20 ms, smoothed by a lag window of 60 Hz, then
    Levinson and Durbin's recursion for all frames at once.
    """
    order, length, step = 10 if rate <= 8000 else 16, 3 * rate // 100, rate // 50  # frames overlap by 10 ms
    if len(signal) < length:
        return np.empty((0, order + 1))
    frames = np.lib.stride_tricks.sliding_window_view(signal, length)[::step] * np.hamming(length)
    r = np.stack([(frames[:, : length - k] * frames[:, k:]).sum(1) for k in range(order + 1)], axis=1)
    if not silent:
        r = r[r[:, 0] > 1e-4 * r[:, 0].max()]
    r = r * np.exp(-0.5 * (2 * np.pi * 60 / rate * np.arange(order + 1)) ** 2)
    r[:, 0] = 1.0001 * r[:, 0] + 1e-9  # (of nothing but zeros, too, there is a predictor)
    a, error = np.zeros_like(r), r[:, 0].copy()
    a[:, 0] = 1.0
    for i in range(1, order + 1):
        reflection = -(a[:, :i] * r[:, i:0:-1]).sum(1) / error
        a[:, 1 : i + 1] += reflection[:, None] * a[:, i - 1 :: -1][:, :i]
        error *= 1 - reflection**2
    return a


def line_frequencies(a: np.ndarray) -> np.ndarray:
    """Line spectral frequencies, (n, p) ascending in 0..π, of predictors (n, p + 1)."""
    mirrored = np.pad(a[:, ::-1], ((0, 0), (1, 0)))
    a = np.pad(a, ((0, 0), (0, 1)))
    angles = []
    for sign in (1, -1):  # A(z) ± z^-(p+1) A(1/z), less the root at -1 or 1 that it always has
        polynomial = a + sign * mirrored
        power = (-sign) ** np.arange(polynomial.shape[1])
        reduced = (np.cumsum(polynomial * power, axis=1) * power)[:, :-1]
        companion = np.zeros((len(a), reduced.shape[1] - 1, reduced.shape[1] - 1))
        companion[:, 0] = -reduced[:, 1:] / reduced[:, :1]
        companion[:, np.arange(1, reduced.shape[1] - 1), np.arange(reduced.shape[1] - 2)] = 1.0
        angles.append(np.sort(np.abs(np.angle(np.linalg.eigvals(companion))), axis=1)[:, ::2])
    return np.sort(np.concatenate(angles, axis=1), axis=1)


def predictors_of(frequencies: np.ndarray, gap: float = 0.01) -> np.ndarray:
    """Predictors (n, p + 1) of line spectral frequencies (n, p), which are put in order and ``gap`` apart: what is
    decoded may not be, and would not be stable."""
    f = np.sort(frequencies, axis=1)
    p = f.shape[1]
    for k in range(p):
        f[:, k] = np.clip(f[:, k], (f[:, k - 1] if k else 0) + gap, np.pi - (p - k) * gap)
    sums = 0.0
    for sign, own in ((1, f[:, 0::2]), (-1, f[:, 1::2])):
        polynomial = np.ones((len(f), 1))
        for cosine in np.cos(own).T:
            wider = np.pad(polynomial, ((0, 0), (0, 2)))
            wider[:, 1:-1] -= 2 * cosine[:, None] * polynomial
            wider[:, 2:] += polynomial
            polynomial = wider
        widest = np.pad(polynomial, ((0, 0), (0, 1)))
        widest[:, 1:] += sign * polynomial
        sums = sums + widest
    return sums[:, :-1] / 2


def distortion(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Log-spectral distortion (n,) in dB between the envelopes 1/|A|² of two sets of predictors."""
    decibels = [-20 * np.log10(np.abs(np.fft.rfft(x, 512, axis=1))) for x in (a, b)]
    return np.sqrt(((decibels[0] - decibels[1]) ** 2).mean(1))


def through(signal: np.ndarray, a: np.ndarray, b: np.ndarray, start: int, step: int) -> np.ndarray:
    """The signal with envelopes ``b`` in place of its own ``a`` (n, p + 1), from ``start`` on: what ``a`` does not
    predict of each ``step`` samples is put through 1/B."""
    p = a.shape[1] - 1
    out = np.concatenate([signal[:start], np.zeros(step * len(a))])
    for i, (own, other) in enumerate(zip(a, b, strict=True)):
        at = start + i * step
        rest = np.convolve(signal[at - p : at + step], own, "valid")
        before = lfiltic([1.0], other, out[at - p : at][::-1])
        out[at : at + step] = lfilter([1.0], other, rest, zi=before)[0]
    return out[start:]


def heard(signals: list[tuple[np.ndarray, int]], coder) -> float:
    """Mean PESQ (ITU-T P.862) of signals whose envelopes were coded; those without speech are left out."""
    from pesq import PesqError, pesq

    scores = []
    for signal, rate in signals:
        a = predictors(signal, rate, silent=True)
        decoded = coder.decode(coder.encode(line_frequencies(a).astype(np.float32)))
        start, step = rate // 200, rate // 50  # the middle of each frame
        back = through(signal, a, predictors_of(decoded.astype(float)), start, step)
        pair = (np.clip(x, -32768, 32767).astype(np.int16) for x in (signal[start : start + len(back)], back))
        scores.append(pesq(rate, *pair, "nb" if rate <= 8000 else "wb", on_error=PesqError.RETURN_VALUES))
    return float(np.mean([score for score in scores if score > 0]))


def draw(done: dict, path: str | Path) -> None:
    """Distortion against bits and against counted cost, frames that are far off, and PESQ where it was measured, of
    what ``--json`` writes."""
    panels = [("bits", "lsd", "bits a frame"), ("wmops", "lsd", "WMOPS a frame"), ("bits", "beyond", "bits a frame")]
    panels += [("bits", "pesq", "bits a frame")] if "pesq" in done["rows"][0] else []
    titles = {"lsd": "distortion, dB", "beyond": "share of frames beyond 2 dB", "pesq": "PESQ"}
    lines = 1 + len(panels) // 4
    figure, axes = plot.figure(lines, len(panels) // lines)
    for axis, (x, y, label) in zip(axes.flat, panels, strict=True):
        for at, code in enumerate(CODES.values()):
            points = [(r[x], r[y]) for r in done["rows"] if r["code"] == code]
            axis.plot(*zip(*points, strict=True), label=code, color=plot.COLOURS[at], marker=plot.MARKERS[at])
        if y != "pesq":
            axis.axhline(1.0 if y == "lsd" else 0.02, color="0.6", ls="--", label="transparent, below")
        axis.set(xlabel=label, ylabel=titles[y])
        axis.grid(alpha=0.3)
    axes.flat[1].set_xscale("log")
    axes[0][0].legend(frameon=False)
    figure.suptitle(done["what"], fontsize=9)
    figure.savefig(path)


def main() -> list[dict]:
    """Learn and code; returns a row per code and rate: code, bits, lsd, beyond, wmops, and pesq if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of 16-bit mono WAV files")
    parser.add_argument("--synthetic", type=float, metavar="SECONDS", help="a synthetic signal in place of speech")
    parser.add_argument("--nbits", type=int, nargs="+", default=list(range(3, 11)), help="bits of each codebook")
    parser.add_argument("--frames", type=int, default=60_000, help="at most so many")
    parser.add_argument("--pesq", type=int, default=0, metavar="N", help="of so many recordings of the test")
    parser.add_argument("--plot", metavar="FILE", help="as PNG, SVG or PDF")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what is drawn")
    args = parser.parse_args()

    if args.folder:
        what, signals = f"recordings of {args.folder.name}", recordings(args.folder)
    elif args.synthetic is None and shutil.which("espeak-ng"):
        what, signals = "synthetic speech of espeak-ng", spoken()
    else:
        what, signals = "synthetic signal, no speech", synthetic(args.synthetic or 60.0)
    signals = list(signals)
    each = [predictors(signal, rate) for signal, rate in signals]
    if not each:
        raise SystemExit(f"no WAV files in {args.folder}")
    # Whole recordings are for learning or for the test, so that no frame has a neighbour on the other side.
    order = np.random.default_rng(0).permutation(len(each))
    kept = order[: len(each) // 5]
    parts = [np.concatenate([each[i] for i in some]) for some in (order[len(each) // 5 :], kept)]
    learn, test = (part[: args.frames * share // 5] for part, share in zip(parts, (4, 1), strict=True))
    x, asked = (line_frequencies(a).astype(np.float32) for a in (learn, test))
    what = f"{what}: {len(each)} recordings, {len(x):,} frames to learn from, {len(asked):,} to test"
    print(what)

    results = []
    for nbits in args.nbits:
        for kind, code in CODES.items():
            quantizer = annvq.make(kind, dim=x.shape[1], M=4, nbits=nbits).fit(x)
            decoded = quantizer.decode(quantizer.encode(asked)).astype(float)
            off = distortion(test, predictors_of(decoded))
            row = {"code": code, "bits": 4 * nbits, "lsd": float(off.mean()), "beyond": float((off > 2).mean())}
            row["wmops"] = quantizer.costs().wmops()
            text = f"{4 * nbits:>3} bits  {code}  {off.mean():.2f} dB, {(off > 2).mean():.1%} beyond 2 dB"
            if args.pesq:
                row["pesq"] = heard([signals[i] for i in kept[: args.pesq]], quantizer)
                text += f", PESQ {row['pesq']:.2f}"
            results.append(row)
            print(text, flush=True)
    done = {"what": what, "rows": results}
    if args.json:
        args.json.write_text(json.dumps(done, indent=1) + "\n")
    if args.plot:
        draw(done, args.plot)
    return results


if __name__ == "__main__":
    main()
