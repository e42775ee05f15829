"""Files from anywhere: each parser gives a value or an error of ours, whatever it is fed."""
