"""Training: the loop, optimisation, checkpoints."""

from perpixel._torchvision import ensure_torchvision

# Lightning imports torchmetrics, and that imports torchvision.
ensure_torchvision()
