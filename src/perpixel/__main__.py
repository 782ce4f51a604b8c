"""``python -m perpixel``."""

from perpixel.cli import main

main()
