"""The settings of a release in NeMo's form, and how tests change them."""

import copy

from convert.nemo.settings import parse

# Settings of a release beside the model's parts: NeMo's recipe as NeMo saves it.
BESIDE = """
sample_rate: 16000
compute_eval_loss: false
log_prediction: true
rnnt_reduction: mean_volume
skip_nan_grad: false
model_defaults: {enc_hidden: 1024, pred_hidden: 640, joint_hidden: 640}
train_ds:
  manifest_filepath: [[a.json], [b.json]]
  use_lhotse: true
  batch_duration: null
  augmentor: {white_noise: {prob: 0.9, min_level: -90}}
validation_ds:
  manifest_filepath: ???
  batch_size: 16
test_ds: {manifest_filepath: null}
tokenizer:
  dir: /data/tokenizers/spe_bpe_v1024
  type: bpe
  model_path: nemo:2afb0d4e_tokenizer.model
  vocab_path: nemo:9dfe1c2b_vocab.txt
  spe_tokenizer_vocab: nemo:c1d2e3f4_tokenizer.vocab
spec_augment: {_target_: nemo.collections.asr.modules.SpectrogramAugmentation, freq_masks: 2, time_masks: 10}
interctc: {loss_weights: [], apply_at_layers: []}
variational_noise: {start_step: 0, std: 0.0}
loss: {loss_name: default, warprnnt_numba_kwargs: {fastemit_lambda: 5e-3, clamp: -1.0}}
optim: {name: adamw, lr: 5.0, betas: [0.9, 0.98], sched: {name: NoamAnnealing, min_lr: 1e-6}}
target: nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel
nemo_version: 2.6.0rc0
"""
PARTS = """
preprocessor:
  {_target_: nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor, sample_rate: 16000, normalize: NA,
   window_size: 0.025, window_stride: 0.01, window: hann, features: 128, n_fft: 512, log: true, frame_splicing: 1,
   dither: 1.0e-05, pad_to: 0, pad_value: 0.0}
encoder:
  {_target_: nemo.collections.asr.modules.ConformerEncoder, feat_in: 128, feat_out: -1, n_layers: 24,
   d_model: 1024, use_bias: false, subsampling: dw_striding, subsampling_factor: 8, subsampling_conv_channels: 256,
   causal_downsampling: true, reduction: null, reduction_position: null, reduction_factor: 1,
   ff_expansion_factor: 4, self_attention_model: rel_pos, n_heads: 8,
   att_context_size: [[70, 13], [70, 6], [70, 1], [70, 0]], att_context_style: chunked_limited,
   att_context_probs: null, xscaling: false, untie_biases: true, pos_emb_max_len: 5000, conv_kernel_size: 9,
   conv_norm_type: layer_norm, conv_context_size: causal, dropout: 0.1, dropout_pre_encoder: 0.1, dropout_emb: 0.0,
   dropout_att: 0.1, stochastic_depth_drop_prob: 0.0, stochastic_depth_mode: linear, stochastic_depth_start_layer: 1}
decoder:
  {_target_: nemo.collections.asr.modules.RNNTDecoder, normalization_mode: null, random_state_sampling: false,
   blank_as_pad: true, prednet: {pred_hidden: 640, pred_rnn_layers: 2, t_max: null, dropout: 0.2}, vocab_size: 1024}
joint:
  {_target_: nemo.collections.asr.modules.RNNTJoint, log_softmax: null, preserve_memory: false, fuse_loss_wer: true,
   fused_batch_size: 4, jointnet: {joint_hidden: 640, activation: relu, dropout: 0.2, encoder_hidden: 1024,
   pred_hidden: 640}, num_classes: 1024}
decoding:
  strategy: greedy_batch
  greedy: {max_symbols: 10}
  beam: {beam_size: 2, return_best_hypothesis: false, score_norm: true, tsd_max_sym_exp: 50, alsd_max_target_len: 2.0}
"""
RELEASE = parse((BESIDE + PARTS).encode())


def changed(path: str, value, base=RELEASE) -> dict:
    """Returns the release's settings with one value replaced, or removed if it is `...`."""
    made = copy.deepcopy(base)
    *sections, key = path.split(".")
    place = made
    for section in sections:
        place = place.setdefault(section, {})
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return made
