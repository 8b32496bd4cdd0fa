"""CVDVAE (Prost et al., VISAPP 2024; github:jprost76/srvdvae) and its prior VD-VAE (Child 2021; github:openai/vdvae)."""

from methods.cvdvae import information, method, training  # noqa: F401 -- they register
