"""A fit that was stopped goes on from its checkpoint."""

from dataclasses import dataclass, field

import numpy as np
import pytest

import annvq
from annvq.errors import FormatError
from annvq.training import KMeans, Recipe, Trainer, TrainerPart

X = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)


class StoppedError(Exception):
    """What ends a fit in a test."""


@dataclass(frozen=True)
class Counted:
    """A part that counts how often it is done, and raises where there is something to raise."""

    part: object
    done: list = field(default_factory=list, repr=False)
    fails: list = field(default_factory=list, repr=False)

    def __call__(self, quantizer, data):
        if self.fails:
            raise self.fails.pop()
        self.part(quantizer, data)
        self.done.append(1)


def recipe(*fails):
    second = TrainerPart(Trainer(steps=5, batch_size=32))
    return Recipe((Counted(KMeans(2)), Counted(second, fails=list(fails))))


@pytest.mark.parametrize("kind", ["product", "rotated-product", "residual"])
def test_it_goes_on_after_the_last_part_that_was_done(kind, tmp_path):
    make = lambda: annvq.make(kind, dim=8, M=2, nbits=4)  # noqa: E731
    whole = make().fit(X, seed=1, recipe=recipe())
    path, quantizer, stopped = tmp_path / "kept", make(), recipe(StoppedError())
    with pytest.raises(StoppedError):
        quantizer.fit(X, seed=1, recipe=stopped, checkpoint=path)
    assert not quantizer.fitted
    quantizer.fit(X, seed=1, recipe=stopped, checkpoint=path)
    assert [len(part.done) for part in stopped.parts] == [1, 1]
    assert quantizer.to_bytes() == whole.to_bytes()
    again = recipe()
    make().fit(X, seed=1, recipe=again, checkpoint=path)
    assert [part.done for part in again.parts] == [[], []]


@pytest.mark.parametrize(
    ("differs", "what"),
    [({"seed": 2}, "seed"), ({"recipe": Recipe((KMeans(3),))}, "recipe"), ({"x": X[1:]}, "vectors")],
)
def test_a_checkpoint_of_another_fit_is_refused(differs, what, tmp_path):
    usual = {"x": X, "seed": 1, "recipe": recipe(), "checkpoint": tmp_path / "kept"}
    annvq.ProductVQ(8, M=2, nbits=4).fit(**usual)
    with pytest.raises(ValueError, match=f"kept is of another run, with another {what}: delete it"):
        annvq.ProductVQ(8, M=2, nbits=4).fit(**(usual | differs))
    with pytest.raises(ValueError, match="with another quantizer"):
        annvq.ProductVQ(8, M=2, nbits=3).fit(**usual)


def test_a_place_that_cannot_be_written_to_is_refused_first(tmp_path):
    unused = recipe()
    with pytest.raises(FileNotFoundError):
        annvq.ProductVQ(8, M=2, nbits=4).fit(X, recipe=unused, checkpoint=tmp_path / "nowhere" / "kept")
    assert not unused.parts[0].done


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "kept"
    path.write_bytes(b"something else, long enough to be a header")
    with pytest.raises(FormatError):
        annvq.ProductVQ(8, M=2, nbits=4).fit(X, recipe=recipe(), checkpoint=path)
