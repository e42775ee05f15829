"""SMPL's files, read without running them, and the joints of its meshes; numpy alone."""
