"""weightaug: training under perturbed weights. DAMP, DAAP and WAS as a library that needs torch alone."""

from weightaug.copies import WeightCopies
from weightaug.damp import DAAP, DAMP
from weightaug.materialise import materialise
from weightaug.method import Criterion, Method
from weightaug.parts import Part
from weightaug.random import RandomSource
from weightaug.stacks import StackingError
from weightaug.was import WAS

__version__ = "0.1.0"
__all__ = [
    "DAAP",
    "DAMP",
    "WAS",
    "Criterion",
    "Method",
    "Part",
    "RandomSource",
    "StackingError",
    "WeightCopies",
    "materialise",
]
