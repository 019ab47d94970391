"""Holds what tests of several folders share."""
