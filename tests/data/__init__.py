"""Tests of `minires/data`."""
