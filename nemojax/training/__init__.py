"""Training:

recipe.py          settings, learning rate, optimizer
step.py            the training step: loss, gradient, update
rnnt_loss.py       the RNN-T loss, fused with the joint network
lattice.py         the sum over alignments, with its gradient
ctc.py             the auxiliary CTC loss
augment.py         dither and SpecAugment
sharding.py        the step spread over devices
new_vocabulary.py  a model with another tokenizer
"""
