"""Runs experiments: spec, plan, cells, store; the command line.

The modules are imported one by one, because the command line must answer before torch is loaded.
"""
