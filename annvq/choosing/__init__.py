"""Choosing a code for a bit budget, by measuring: which quantizer, how many codebooks, which norm.

Measuring is staged, as in successive halving: every code of the grid on a part of the sample with short training, the
best of them again on as much of it as time allows, fewer where time is short. Time is bounded: no code is begun that
would not end within ``seconds``.
"""

from annvq.choosing.choice import Choice, choose
from annvq.choosing.grid import Candidate

__all__ = ["Candidate", "Choice", "choose"]
