"""CVDVAE (Prost et al., VISAPP 2024) and its prior VD-VAE (Child 2021).

Sources: github:jprost76/srvdvae and github:openai/vdvae; scripts/compare_vdvae.py runs them beside this.
"""

from methods.cvdvae import information, method, training  # noqa: F401 -- they register
