"""Frames as ``cv2.imread`` gives them, or a reason why not; and smaller ones."""
