"""Learn the normal distribution with each quantizer, from an endless stream of samples.

    python examples/normal_distribution.py [--dim 64] [--bits 24] [--steps 600]

No data set: every batch is drawn anew. Prints the mean squared error per coordinate, which is 1 without any code.
"""

import argparse

import torch

import annvq
from annvq.training import Replacement, Trainer


def main() -> dict[str, float]:
    """Train the three quantizers; returns their errors by name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--codebooks", type=int, default=4)
    parser.add_argument("--bits", type=int, default=24, help="bits per vector, shared by the codebooks")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--plot", metavar="FILE", help="training of the additive quantizer, as PNG or PDF")
    args = parser.parse_args()

    def samples(generator: torch.Generator) -> torch.Tensor:
        return torch.randn(1024, args.dim, generator=generator)

    test = torch.randn(4000, args.dim, generator=torch.Generator().manual_seed(1))
    trainer = Trainer(steps=args.steps, learning_rate=1e-2, replacement=Replacement())
    errors = {}
    for name in ("product", "residual", "additive"):
        torch.manual_seed(0)
        quantizer = annvq.make(name, dim=args.dim, M=args.codebooks, nbits=args.bits // args.codebooks)
        history = trainer.run(quantizer, samples, seed=0)
        errors[name] = float((quantizer.decode(quantizer.encode(test)) - test).square().mean())
        print(f"{name:<10}{errors[name]:.4f}   (last training batch {history.loss[-1] / args.dim:.4f})")
    if args.plot:
        history.plot(args.plot)
    return errors


if __name__ == "__main__":
    main()
