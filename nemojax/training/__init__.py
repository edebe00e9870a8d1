"""Training, in the order in which a step computes:

state.py           the state of a run: weights, average, optimizer, counters
augment.py         dither and SpecAugment
forward.py         the forward pass, with its intermediate outputs
losses.py          named, weighted losses of these outputs; how to add one
rnnt_loss.py       the RNN-T loss, fused with the joint network
lattice.py         the sum over alignments, with its gradient
ctc.py             the auxiliary CTC loss
recipe.py          settings, learning rate, optimizer
lora.py            adapters that are trained in the place of kernels
update.py          the gradient's update of the state, and when it is skipped
step.py            the training step: losses, gradient, update
sharding.py        the step spread over devices
new_vocabulary.py  a model with another tokenizer
"""
