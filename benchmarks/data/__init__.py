"""Data sets as tensors on the device, augmentation and corruptions."""
