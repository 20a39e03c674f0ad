"""A loopback server that speaks the wire format of Anthropic's API, with a world, faults and a bill of its own.

For tests, benchmarks and `manage.py fake_anthropic`; the real SDK talks to it. The rule: what a caller can see is as
the real API shows it (paths, headers, bodies, what is billed), what it says follows from the request and a seed.
`python -m training.loopback` runs it as a process. It knows no Django.
"""
