"""SR3 (Saharia et al. 2021) as in github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement.

scripts/compare_sr3.py runs the public code beside this.
"""

from methods.sr3 import method, training  # noqa: F401 -- they register
