"""How the pocket model is made: dialogues are generated, a small Qwen3 is trained on them.

The result is a test article and a demonstration; see README.md beside this file.
"""
