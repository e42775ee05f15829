"""Items: one stored sample and its augmentation become an image and its labels."""
