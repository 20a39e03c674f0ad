"""The whole loop once, on real processes, as a newcomer watches it: `manage.py demo`.

Each stage asks first whether it was done, so that a demo that was cut off goes on where it stood.
"""
