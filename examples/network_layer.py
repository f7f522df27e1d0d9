"""A quantizer as a layer: an auto-encoder whose bottleneck is a residual quantizer, trained end to end.

    python examples/network_layer.py [--epochs 20]

The data are scikit-learn's 8×8 digits; each is stored in 16 bits.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import annvq


class AutoEncoder(nn.Module):
    """64 pixels → 16 features → 16 bits → 16 features → 64 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.quantizer = annvq.ResidualVQ(16, M=2, nbits=8, beam=4)
        self.decoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.quantizer(self.encoder(x)).xhat)


def main() -> tuple[float, float]:
    """Train; returns the reconstruction error before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()

    torch.manual_seed(0)
    images = torch.from_numpy(load_digits().data).float() / 16
    train, test = images[:1500], images[1500:]
    model = AutoEncoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def error() -> float:
        with torch.no_grad():
            return float((model.eval()(test) - test).square().mean())

    model.train()(train[:8])  # the first pass in training mode puts the codebooks to use
    before = error()
    for _ in range(args.epochs):
        model.train()
        for batch in train[torch.randperm(len(train))].split(100):
            loss = (model(batch) - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = error()
    print(f"mean squared error per pixel: {before:.4f} before, {after:.4f} after {args.epochs} epochs, at 16 bits")
    return before, after


if __name__ == "__main__":
    main()
