"""The page and the HTTP service: look at a model, and at what it does to one's own images."""
