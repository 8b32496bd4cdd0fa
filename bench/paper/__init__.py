"""One paper's protocol (Prost et al., VISAPP 2024): its published figures, tables and pictures at one command."""
