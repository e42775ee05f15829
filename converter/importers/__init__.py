"""What data sets distribute as annotations becomes a SPIN npz: one module each."""
