"""Image compression: a small auto-encoder whose bottleneck is a product, residual or additive code, trained by NSVQ.

    python examples/image_compression.py --plot images.png
    python examples/image_compression.py --idx train-images-idx3-ubyte.gz     # Fashion-MNIST, MNIST and the like

After figure 4 of Vali and Bäckström (ICASSP 2023): a latent vector of 64 dimensions for every 8x8 pixels, M = 4
codebooks of 3 to 10 bits. Prints PSNR and SSIM of images that training has not seen, and what encoding a vector costs,
counted. The images are 32x32 parts of the two photographs that scikit-learn ships, in colour; training takes the left
of each, the test the right. The auto-encoder is first trained without a code, then with each.
"""

import argparse
import copy
import gzip
import json
import math
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

import annvq
from annvq.benchmarks import plot

SIDE = 32
CODES = {"additive": "AVQ", "residual": "RVQ", "product": "PVQ"}


class Compressor(nn.Module):
    """Images (n, C, 32, 32) → a vector of 64 dimensions for every 8x8 pixels → codes → images."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        down = [(channels, width), (width, 2 * width), (2 * width, 64)]
        self.encoder = nn.Sequential(
            *(layer for a, b in down for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())), nn.Conv2d(64, 64, 1)
        )
        self.quantizer: nn.Module | None = None
        self.decoder = nn.Sequential(
            nn.Conv2d(64, 64, 1),
            *(layer for a, b in reversed(down) for layer in (nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))),
        )

    def latents(self, x: Tensor) -> Tensor:
        """(n, 4, 4, 64): the vectors that are quantized."""
        return self.encoder(x).permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.latents(x)
        if self.quantizer is not None:
            z = self.quantizer(z).xhat
        return self.decoder(z.permute(0, 3, 1, 2))


def photographs(step: int) -> tuple[Tensor, Tensor]:
    """Training and test images, float32 (n, 3, 32, 32) in 0..1: overlapping on the left, side by side on the right."""
    train, test = [], []
    for image in load_sample_images().images:
        height, width, _ = image.shape
        middle = 2 * width // 3 // SIDE * SIDE
        for images, left, right, by in ((train, 0, middle, step), (test, middle, width, SIDE)):
            corners = [(y, x) for y in range(0, height - SIDE + 1, by) for x in range(left, right - SIDE + 1, by)]
            images += [image[y : y + SIDE, x : x + SIDE] for y, x in corners]
    return tuple(torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).float() / 255 for x in (train, test))


def idx_images(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """Images of a file of MNIST's format, float32 (n, 1, 32, 32): the first ``count`` to train on, 500 more to test."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        n, rows, columns = np.frombuffer(file.read(16), ">i4")[1:]
        take = min(int(n), count + 500)
        pixels = np.frombuffer(file.read(take * int(rows) * int(columns)), np.uint8).reshape(take, rows, columns)
    border = [(0, 0), *(((SIDE - size) // 2, SIDE - size - (SIDE - size) // 2) for size in (rows, columns))]
    images = torch.from_numpy(np.pad(pixels, border))[:, None].float() / 255
    return images[:-500], images[-500:]


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in 0..1, over all pixels."""
    return -10 * math.log10(float((a - b).square().mean()))


def ssim(a: Tensor, b: Tensor) -> float:
    """Mean structural similarity in windows of 7x7 pixels (Wang, Bovik, Sheikh and Simoncelli, 2004, eq. 13)."""
    window, unbiased = nn.AvgPool2d(7, 1), 49 / 48
    mean_a, mean_b = window(a), window(b)
    var_a = unbiased * (window(a * a) - mean_a**2)
    var_b = unbiased * (window(b * b) - mean_b**2)
    both = unbiased * (window(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def train(model: Compressor, images: Tensor, steps: int, rate: float) -> None:
    """Adam on mean squared error, batches of 64 images; with a quantizer the gradient passes it by NSVQ."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        batch = images[torch.randint(len(images), (64,))]
        loss = (model(batch) - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def quality(model: Compressor, images: Tensor) -> tuple[float, float]:
    """PSNR and SSIM of what comes back of ``images``."""
    out = model.eval()(images).clamp(0, 1)
    return psnr(out, images), ssim(out, images)


@torch.no_grad()
def with_quantizer(model: Compressor, kind: str, nbits: int, images: Tensor, beam: int) -> Compressor:
    """A copy of ``model`` with codebooks that begin at latent vectors of ``images``, or parts of them."""
    made = copy.deepcopy(model)
    made.quantizer = annvq.make(kind, dim=64, M=4, nbits=nbits, **({"beam": beam} if kind == "additive" else {}))
    latents = model.eval().latents(images[torch.randperm(len(images))[:500]]).reshape(-1, 64)
    made.quantizer.fit(latents[:8000], recipe=annvq.training.Recipe([annvq.training.KMeans(iterations=1)]))
    return made


def draw(done: dict, path: str | Path) -> None:
    """PSNR and SSIM against bits and against counted cost, as one picture of what ``--json`` writes."""
    figure, axes = plot.figure(2, 2)
    for line, (name, unit) in zip(axes, (("psnr", "PSNR, dB"), ("ssim", "SSIM")), strict=True):
        for axis, x, label in zip(
            line, ("bits", "wmops"), ("bits a vector (64 pixels)", "WMOPS a vector"), strict=True
        ):
            for at, code in enumerate(CODES.values()):
                points = [(r[x], r[name]) for r in done["rows"] if r["code"] == code]
                axis.plot(*zip(*points, strict=True), label=code, color=plot.COLOURS[at], marker=plot.MARKERS[at])
            axis.axhline(done["without"][name == "ssim"], color="0.6", ls="--", label="without a code")
            axis.set(xlabel=label, ylabel=unit)
            axis.grid(alpha=0.3)
        line[1].set_xscale("log")
    axes[0][0].legend(frameon=False)
    figure.suptitle(done["what"], fontsize=9)
    figure.savefig(path)


def main() -> list[dict]:
    """Train; returns a row per code and rate: code, bits, psnr, ssim, wmops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idx", type=Path, help="images of MNIST's format in place of the photographs")
    parser.add_argument("--nbits", type=int, nargs="+", default=list(range(3, 11)), help="bits of each codebook")
    parser.add_argument("--steps", type=int, default=400, help="of training with a code; three times as many without")
    parser.add_argument("--width", type=int, default=32, help="channels of the first layer")
    parser.add_argument("--beam", type=int, default=16, help="of additive codes")
    parser.add_argument("--plot", metavar="FILE", help="as PNG, SVG or PDF")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what is drawn")
    args = parser.parse_args()

    torch.manual_seed(0)
    images, test = idx_images(args.idx, 20_000) if args.idx else photographs(step=8)
    model = Compressor(images.shape[1], args.width)
    train(model, images, 3 * args.steps, 2e-3)
    best = quality(model, test)
    source = args.idx.name if args.idx else "photographs that scikit-learn ships"
    what = f"{source}: {len(images):,} images to train on, {len(test)} to test, {args.steps} steps"
    print(f"{what}; without a code: {best[0]:.2f} dB, {best[1]:.3f}")

    results = []
    for nbits in args.nbits:
        for kind, code in CODES.items():
            torch.manual_seed(1)
            coded = with_quantizer(model, kind, nbits, images, args.beam)
            train(coded, images, args.steps, 1e-3)
            db, similarity = quality(coded, test)
            cost = coded.quantizer.costs().wmops()
            results.append({"code": code, "bits": 4 * nbits, "psnr": db, "ssim": similarity, "wmops": cost})
            print(f"{4 * nbits:>3} bits  {code}  PSNR {db:.2f} dB  SSIM {similarity:.3f}  {cost:.3g} WMOPS", flush=True)
    done = {"what": what, "without": best, "rows": results}
    if args.json:
        args.json.write_text(json.dumps(done, indent=1) + "\n")
    if args.plot:
        draw(done, args.plot)
    return results


if __name__ == "__main__":
    main()
