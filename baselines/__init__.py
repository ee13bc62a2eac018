"""What the papers' methods are compared with. Same interface as in :mod:`weightaug`; needs torch alone."""

from baselines.corrupted_sgd import CorruptedSGD
from baselines.dropout import Dropout
from baselines.sam import ASAM, SAM
from baselines.sgd import SGD

__all__ = ["ASAM", "SAM", "SGD", "CorruptedSGD", "Dropout"]
