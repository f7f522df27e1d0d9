"""Choosing a code for a bit budget, by measuring: which quantizer, how many codebooks, which norm.

Measuring is successive halving: every code of the grid on a part of the sample with short training, the best of them
again on more of it, fewer and fewer as far as time allows. Time is bounded: what a code takes is estimated before it is
begun, the cheap ones come first, and what would not end within ``seconds`` is named with the reason.
"""

from annvq.choosing.choice import Choice, choose
from annvq.choosing.grid import Candidate
from annvq.choosing.recipe import recipe_text

__all__ = ["Candidate", "Choice", "choose", "recipe_text"]
