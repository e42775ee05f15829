"""Makes items, an image and its labels, from stored samples and augmentation parameters."""
