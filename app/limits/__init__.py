"""May this call happen, and how much is left?"""
