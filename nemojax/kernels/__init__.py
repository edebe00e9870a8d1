"""Faster forms of the model's layers, and the one place that chooses among them:

selection.py        which form runs on this machine
quantization.py     linear layers with packed or int8 kernels
panels.py           the layout of packed kernels, and products with them
native.py           loads the C++ kernels, or compiles them
panel_product.cc    products on a CPU; tile_product.cc, those by tiles (AMX)
compiling.py        the compiler's commands
processors.py       which instructions the C++ kernels may use
fused_attention.py  attention as one kernel on a GPU
fixed_order.py      all sums in an order that no shape changes
fixed_layers.py     its layers; fixed_order.cc, fixed_attention.cc and subsampling.cc have their kernels
narrow.py           activations of bfloat16
"""
