"""Backbones, cross-encoders and bi-encoders: loaded, checked, saved."""
