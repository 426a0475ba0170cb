"""On-disk formats: one file each; names, tensor shapes, templates and tokenizers beside them."""
