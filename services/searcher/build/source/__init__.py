"""Reads a folder of images with their labels."""
