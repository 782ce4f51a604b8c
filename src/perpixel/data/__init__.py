"""From a folder to batches: pairs, split, cache, fit, augmentation."""
