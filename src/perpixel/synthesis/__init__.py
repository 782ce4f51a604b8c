"""Synthetic data sets, for demonstrations and tests without any download. They only import what is below them."""

from perpixel.synthesis.salt_dataset import synthesize_salt

__all__ = ["synthesize_salt"]
