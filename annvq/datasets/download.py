from pathlib import Path

from annvq.datasets.cards import Card


def fetch(card: Card, *, progress: bool | None = None) -> Path:
    raise NotImplementedError
