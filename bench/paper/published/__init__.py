"""The published figures of the paper: Table 1 and Table 2 of Prost et al., VISAPP 2024."""
