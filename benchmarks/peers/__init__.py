"""Other loaders on the same crops, each used as its documentation advises."""
