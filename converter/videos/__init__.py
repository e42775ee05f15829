"""Extracts from videos the frames that an npz names."""
