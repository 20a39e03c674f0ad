"""Assembles the product; imported by nobody."""
