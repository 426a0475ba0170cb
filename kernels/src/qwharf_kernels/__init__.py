"""Carries one shared library for qwharf, made from qwharf's own sources; has nothing to import."""
