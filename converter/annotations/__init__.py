"""What is known of each data set: its npz, read and checked, and its quirks."""
