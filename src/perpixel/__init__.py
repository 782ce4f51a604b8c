"""perpixel: from a folder of images and per-pixel maps to a model you can trust."""
