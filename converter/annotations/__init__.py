"""What is known of each dataset: its npz, read and checked, and its peculiarities."""
