"""Converts images and SPIN annotations to shards: reads the npz, plans, cuts crops, writes
shards.
"""
