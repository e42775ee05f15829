"""SMPL's model files, read without unpickling, and the joints of its meshes; numpy alone."""
