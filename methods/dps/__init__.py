"""Diffusion posterior sampling (Chung et al. 2023; github:DPS2022/diffusion-posterior-sampling).

scripts/compare_dps.py runs the published code beside this.
"""

from methods.dps import guidance, method, training  # noqa: F401 -- they register
