"""HCFlow (Liang et al., ICCV 2021; github:JingyunLiang/HCFlow).

scripts/compare_hcflow.py runs the official code beside this.
"""

from methods.hcflow import method, training  # noqa: F401 -- they register
