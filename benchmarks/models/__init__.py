"""Architectures; each builder takes (num_classes, in_channels, image_size) and its own knobs."""
