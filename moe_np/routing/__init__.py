"""Routers: which token goes to which expert, and with what weight. One file each;
moe_np/routing/contract.py says how.

N tokens   D features   E experts   k choices   A assignments   C capacity
"""
