"""Learning codebooks: gradient estimators, the trainer, and recipes that need no tuning."""

from annvq.training.estimators import NSVQ, DiVeQ, Estimator, RotationTrick, StraightThrough
from annvq.training.groups import EachGroup
from annvq.training.history import History
from annvq.training.maps import LearnLinearMap, LearnRotation
from annvq.training.parts import Alternate, BestOf, ByGrading, KMeans, LearnNormFree, Refit, SubspaceKMeans
from annvq.training.recipe import Recipe
from annvq.training.replacement import Replacement
from annvq.training.trainer import Trainer, TrainerPart

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
    "LearnNormFree",
    "LearnRotation",
    "Recipe",
    "Refit",
    "Replacement",
    "RotationTrick",
    "StraightThrough",
    "SubspaceKMeans",
    "Trainer",
    "TrainerPart",
]
