"""The weight formats, one file each: arrays in, arrays out; numpy only, nothing is opened here.

Every ``dequantize`` gives the float32 values that the stored numbers stand for, and every
``quantize`` rounds to nearest. Matrices are in torch's order, [out, in]. What the tensors of a
format are called is in each file's first lines.
"""
