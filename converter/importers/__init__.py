"""What datasets distribute as annotations becomes a SPIN npz: one module each."""
