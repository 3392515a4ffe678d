"""Whole models, forward and backward, with their checkpoints and generation.

decoder               Mixtral, OLMoE, Qwen-MoE, DeepSeekMoE, the layout of GLaM, dense models
encoder_decoder       Switch in the layout of T5
lstm_moe              LSTM, experts, LSTM (Shazeer et al. 2017)
translation           experts in an LSTM encoder, attention, an LSTM decoder
checkpoints           folders of Hugging Face, read and written; safetensors is their file format
generation            token by token, with keys and values kept
patch_cnn             the patch networks of Chen et al. 2022, and patch_cnn_training
associative_memory    one sparse layer with any router, small enough to train every router on it
"""
