"""The stream's peers: the same crops through other loaders, each as its documentation advises."""
