"""Holds the code that tests in several folders share."""
