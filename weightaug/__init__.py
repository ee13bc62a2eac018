"""weightaug: training under perturbed weights. DAMP, DAAP and WAS as a library that needs torch alone."""

from weightaug.method import Criterion, Method
from weightaug.random import RandomSource
from weightaug.was import WAS

__version__ = "0.1.0"
__all__ = ["WAS", "Criterion", "Method", "RandomSource"]
