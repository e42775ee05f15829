"""ReFit's validation subset of 3DPW: which rows, and their crops."""
