"""Learning codebooks: gradient estimators, the trainer, and recipes that need no tuning.

Names load on first use: what an index needs of this package takes no PyTorch.
"""

from typing import TYPE_CHECKING

from annvq.optional import on_first_use

if TYPE_CHECKING:
    from annvq.training.estimators import NSVQ, DiVeQ, Estimator, RotationTrick, StraightThrough
    from annvq.training.groups import EachGroup
    from annvq.training.history import History
    from annvq.training.maps import LearnLinearMap, LearnRotation, PrincipalAxes
    from annvq.training.networks import LearnNetwork
    from annvq.training.parts import Alternate, BestOf, ByGrading, KMeans, LearnNormFree, Refit, SubspaceKMeans
    from annvq.training.processes import LostProcessError, Processes
    from annvq.training.recipe import Recipe
    from annvq.training.replacement import Replacement
    from annvq.training.trainer import Trainer, TrainerPart

_HOME = {
    "NSVQ": "estimators",
    "DiVeQ": "estimators",
    "Estimator": "estimators",
    "RotationTrick": "estimators",
    "StraightThrough": "estimators",
    "EachGroup": "groups",
    "History": "history",
    "LearnLinearMap": "maps",
    "LearnRotation": "maps",
    "PrincipalAxes": "maps",
    "LearnNetwork": "networks",
    "Alternate": "parts",
    "BestOf": "parts",
    "ByGrading": "parts",
    "KMeans": "parts",
    "LearnNormFree": "parts",
    "Refit": "parts",
    "SubspaceKMeans": "parts",
    "LostProcessError": "processes",
    "Processes": "processes",
    "Recipe": "recipe",
    "Replacement": "replacement",
    "Trainer": "trainer",
    "TrainerPart": "trainer",
}

__all__ = [
    "NSVQ",
    "Alternate",
    "BestOf",
    "ByGrading",
    "DiVeQ",
    "EachGroup",
    "Estimator",
    "History",
    "KMeans",
    "LearnLinearMap",
    "LearnNetwork",
    "LearnNormFree",
    "LearnRotation",
    "LostProcessError",
    "PrincipalAxes",
    "Processes",
    "Recipe",
    "Refit",
    "Replacement",
    "RotationTrick",
    "StraightThrough",
    "SubspaceKMeans",
    "Trainer",
    "TrainerPart",
]


__getattr__ = on_first_use(globals(), _HOME)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
