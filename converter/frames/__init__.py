"""Decodes frames to the pixels of ``cv2.imread``, refuses damaged ones, and resizes and encodes."""
