"""Train codebooks by NSVQ alone, and look at what happened: loss, usage of entries, replaced entries.

    python examples/training_log.py --plot training.png

Random codebooks learn the built-in patches of photographs; entries that are hardly used are replaced by copies of used
ones. ``--history`` keeps the log as JSON, which ``annvq.training.History.load`` reads.
"""

import argparse

import torch

import annvq
from annvq.training import History, Replacement, Trainer


def main() -> History:
    """Train; returns the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", default="additive", help="product, residual or additive")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--nbits", type=int, default=6)
    parser.add_argument("--history", metavar="FILE", help="as JSON")
    parser.add_argument("--plot", metavar="FILE", help="as PNG, SVG or PDF")
    args = parser.parse_args()

    x = annvq.datasets.load("patches").learn.astype("float32")
    x = (x - x.mean(0)) / x.std()
    torch.manual_seed(0)
    quantizer = annvq.make(args.kind, dim=x.shape[1], M=4, nbits=args.nbits)
    trainer = Trainer(
        steps=args.steps, learning_rate=0.1, replacement=Replacement(period=25), validate_every=max(1, args.steps // 20)
    )
    history = trainer.run(quantizer, x[2000:], validation=x[:2000])
    replaced = sum(sum(counts) for _, counts in history.replaced)
    best = min(error for _, error in history.validation)
    print(f"error {history.validation[0][1]:.3f} before, {best:.3f} at step {history.best_step}; {replaced} replaced")
    if args.history:
        history.save(args.history)
    if args.plot:
        history.plot(args.plot)
    return history


if __name__ == "__main__":
    main()
