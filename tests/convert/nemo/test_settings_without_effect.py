"""Every setting that changes nothing, and every one with a single supported meaning."""

import pytest

from convert.errors import ConvertError
from convert.nemo.settings import read, to_config
from nemojax.config import PRESETS
from tests.convert.nemo.release import RELEASE, changed

# every setting of NeMo 3.0.0 that has no effect on the output, by its section
WITHOUT_EFFECT = {
    "": """train_ds validation_ds test_ds spec_augment optim interctc aux_ctc trainer exp_manager name nemo_version
        model_defaults labels hydra compute_eval_loss log_prediction skip_nan_grad use_cer save_pred_to_file
        rnnt_reduction ctc_reduction variational_noise freeze_updates optim_param_groups normalize_text use_lhotse
        normalize_encoder_norm normalize_decoder_norm normalize_joint_norm normalize_joint_txu init_from_nemo_model
        init_from_pretrained_model init_from_ptl_ckpt calculate_eou_metrics token_init_method token_init_weight_value
        token_init_bias_value async_streaming num_workers memory_profile nsys_profile chakra_profile dump_debug_info
        dump_debug_info_to_file freeze_encoder char_labels adapters nemo_file_path do_training do_testing
        init_strategy model_type streaming_mode restore_timestamps_model""",
    "preprocessor": """dither rng nb_augmentation_prob nb_max_freq pad_to pad_value use_torchaudio stft_exact_pad
        stft_conv""",
    "encoder": """dropout_pre_encoder dropout_emb att_context_probs stochastic_depth_drop_prob stochastic_depth_mode
        stochastic_depth_start_layer global_tokens_spacing global_attn_separate reduction_position pos_emb_max_len
        subsampling_conv_chunking_factor use_pytorch_sdpa use_pytorch_sdpa_backends sync_max_audio_length""",
    "decoder": "random_state_sampling",
    "decoder.prednet": "t_max forget_gate_bias weights_init_scale hidden_hidden_bias_scale",
    "joint": """preserve_memory fuse_loss_wer fused_batch_size experimental_fuse_loss_wer masking_prob log_softmax
        n_samples""",
    "tokenizer": "dir vocab_path spe_tokenizer_vocab hf_kwargs update_tokenizer",
    "decoding": """model_type compute_hypothesis_token_set preserve_alignments tdt_include_token_duration confidence_cfg
        compute_timestamps compute_langs word_seperator segment_seperators segment_gap_threshold rnnt_timestamp_type
        fused_batch_size lang_tag_pattern confidence_method_cfg confidence_measure_cfg preserve_frame_confidence
        return_best_hypothesis""",
    "decoding.greedy": """preserve_alignments preserve_frame_confidence tdt_include_token_duration confidence_method_cfg
        tdt_include_duration_confidence compute_timestamps confidence_measure_cfg confidence_method loop_labels
        use_cuda_graph_decoder enable_per_stream_biasing ngram_lm_alpha boosting_tree_alpha""",
}


def test_settings_without_effect():
    made = RELEASE
    for section, names in WITHOUT_EFFECT.items():
        for name in names.split():
            made = changed(f"{section}.{name}".strip("."), "anything", made)
    assert read(made, 1024) == (PRESETS["0.6b"], [])


# settings of one supported meaning: NeMo's default, and what else is supported
FIXED = {
    "preprocessor.window": "hann",
    "preprocessor.lowfreq": 0,
    "preprocessor.log": True,
    "preprocessor.log_zero_guard_type": "add",
    "preprocessor.frame_splicing": 1,
    "preprocessor.exact_pad": False,
    "preprocessor.mag_power": 2.0,
    "preprocessor.mel_norm": "slaney",
    "preprocessor.highfreq": None,
    "encoder.reduction": None,
    "encoder.reduction_factor": 1,
    "encoder.self_attention_model": "rel_pos",
    "encoder.att_chunk_context_size": None,
    "encoder.untie_biases": True,
    "encoder.conv_context_style": "regular",
    "encoder.conv_dual_mode": False,
    "encoder.global_tokens": 0,
    "encoder.feat_out": -1,
    "decoder.normalization_mode": None,
    "decoder.blank_as_pad": True,
    "decoder.prednet.rnn_hidden_size": -1,
    "joint.num_extra_outputs": 0,
    "tokenizer.special_tokens": None,
    "tokenizer.custom_tokenizer": None,
}


def test_settings_of_one_meaning_may_be_absent_or_have_their_default():
    absent, given = RELEASE, RELEASE
    for path, value in FIXED.items():
        given = changed(path, value, given)
        absent = changed(path, ..., changed(path, value, absent))
    assert read(absent, 1024) == read(given, 1024) == (PRESETS["0.6b"], [])
    for path in FIXED:
        # this one is of another kind of model, which is named first
        message = "chunks with context on" if path.endswith("att_chunk_context_size") else f"{path}: another is not"
        with pytest.raises(ConvertError, match=message):
            to_config(changed(path, "another"), 1024)
