"""Block quantisers, which tensor gets which type, and what a file then weighs."""
