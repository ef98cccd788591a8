"""A stand-in with the shape of KTRDR: its processes, ports, routes, ids, bodies and status codes.

It does small but real work (bars are made, a model is fitted) and contains no instrumentation of any
kind: whatever the agent shows of it was seen from outside.
"""
