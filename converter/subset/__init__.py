"""Makes ReFit's validation subset of 3DPW: chooses the rows and cuts their crops."""
