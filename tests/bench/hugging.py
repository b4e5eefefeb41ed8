"""Small random transformers models of the Hugging Face library: name -> (build, inputs)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers as hf
from torch import nn

from tests.models import seeded

Entry = tuple[Callable[[], nn.Module], Callable[[], Any]]

VOCABULARY = 120
BERT = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 64}  # fmt: skip
DECODER = BERT | {"num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0}
VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "image_size": 32,
       "patch_size": 8, "num_labels": 7}  # fmt: skip
T5 = {"vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 2, "num_heads": 4,
      "use_cache": False}  # fmt: skip
WHISPER = {"vocab_size": VOCABULARY, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
           "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256,
           "num_mel_bins": 20, "max_source_positions": 50, "max_target_positions": 40, "use_cache": False,
           "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip
WAV = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
       "conv_dim": (32, 32, 32), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 2), "num_feat_extract_layers": 3,
       "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "vocab_size": 32}  # fmt: skip
CLIP_TEXT = {**BERT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _model(kind: str, config: str, options: dict[str, Any], attention: str | None = None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        settings = getattr(hf, config)(**options)
        if attention:
            settings._attn_implementation = attention
        return getattr(hf, kind)(settings)

    return seeded(make)


def _ids(**more: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (2, 12), generator=rng)
    found: dict[str, Any] = {"input_ids": ids}
    for name, length in more.items():
        found[name] = torch.ones_like(ids) if name.endswith("mask") else ids[:, :length]
    return found


def _pixels(side: int = 32, **_: int) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))}


def _sound(length: int = 1200) -> dict[str, Any]:
    return {"input_values": torch.randn(1, length, generator=torch.Generator().manual_seed(1))}


def _whisper() -> dict[str, Any]:
    features = torch.randn(1, 20, 100, generator=torch.Generator().manual_seed(1))
    return {"input_features": features, "decoder_input_ids": torch.arange(3, 12)[None]}


def _clip() -> dict[str, Any]:
    return {**_ids(attention_mask=12), **_pixels()}


_masked, _paired = partial(_ids, attention_mask=12), partial(_ids, decoder_input_ids=7)
_clip_options = {"text_config": CLIP_TEXT, "vision_config": VIT, "projection_dim": 32}
_swin = {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4,
         "num_labels": 7}  # fmt: skip
_convnext = {"hidden_sizes": [32, 64], "depths": [2, 2], "num_stages": 2, "num_labels": 7}
_resnet = {"embedding_size": 32, "hidden_sizes": [32, 64], "depths": [2, 2], "num_labels": 7}
_regnet = {**_resnet, "groups_width": 16}
_segformer = {"hidden_sizes": [32, 64], "depths": [1, 1], "num_encoder_blocks": 2, "num_attention_heads": [2, 4],
              "sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2],
              "decoder_hidden_size": 64, "num_labels": 7}  # fmt: skip
_mobilevit = {"hidden_sizes": [48, 64, 80], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 160], "image_size": 64,
              "num_attention_heads": 4, "num_labels": 7}  # fmt: skip
_gpt2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False}
_distil = {
    "vocab_size": VOCABULARY,
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 256,
    "max_position_embeddings": 64,
}
_opt = {**BERT, "ffn_dim": 256, "word_embed_proj_dim": 64, "use_cache": False, "pad_token_id": 1}
_electra = {**BERT, "embedding_size": 32}

SUBJECTS: dict[str, Entry] = {
    "bert": (_model("BertModel", "BertConfig", BERT), _masked),
    "bert_eager": (_model("BertModel", "BertConfig", BERT, "eager"), _masked),
    "bert_classifier": (_model("BertForSequenceClassification", "BertConfig", BERT), _masked),
    "bert_masked_lm": (_model("BertForMaskedLM", "BertConfig", BERT), _ids),
    "bert_question": (_model("BertForQuestionAnswering", "BertConfig", BERT), _ids),
    "distilbert": (_model("DistilBertModel", "DistilBertConfig", _distil), _masked),
    "distilbert_classifier": (_model("DistilBertForSequenceClassification", "DistilBertConfig", _distil), _ids),
    "roberta": (_model("RobertaModel", "RobertaConfig", BERT), _masked),
    "roberta_token": (_model("RobertaForTokenClassification", "RobertaConfig", BERT), _masked),
    "electra": (_model("ElectraModel", "ElectraConfig", _electra), _masked),
    "gpt2": (_model("GPT2LMHeadModel", "GPT2Config", _gpt2), _ids),
    "gpt2_cached": (_model("GPT2LMHeadModel", "GPT2Config", _gpt2 | {"use_cache": True}), _ids),
    "gpt2_eager": (_model("GPT2Model", "GPT2Config", _gpt2, "eager"), _masked),
    "opt": (_model("OPTForCausalLM", "OPTConfig", _opt), _masked),
    "llama": (_model("LlamaForCausalLM", "LlamaConfig", DECODER), _ids),
    "llama_eager": (_model("LlamaForCausalLM", "LlamaConfig", DECODER, "eager"), _masked),
    "llama_cached": (_model("LlamaModel", "LlamaConfig", DECODER | {"use_cache": True}), _ids),
    "llama_tied": (_model("LlamaForCausalLM", "LlamaConfig", DECODER | {"tie_word_embeddings": True}), _ids),
    "mistral": (_model("MistralForCausalLM", "MistralConfig", DECODER), _ids),
    "qwen2": (_model("Qwen2ForCausalLM", "Qwen2Config", DECODER), _ids),
    "qwen2_eager": (_model("Qwen2ForCausalLM", "Qwen2Config", DECODER, "eager"), _masked),
    "t5": (_model("T5ForConditionalGeneration", "T5Config", T5), _paired),
    "t5_encoder": (_model("T5EncoderModel", "T5Config", T5), _masked),
    "t5_gated": (_model("T5Model", "T5Config", T5 | {"feed_forward_proj": "gated-gelu"}), _paired),
    "vit": (_model("ViTForImageClassification", "ViTConfig", VIT), _pixels),
    "vit_eager": (_model("ViTModel", "ViTConfig", VIT, "eager"), _pixels),
    "deit": (_model("DeiTForImageClassificationWithTeacher", "DeiTConfig", VIT), _pixels),
    "swin": (_model("SwinForImageClassification", "SwinConfig", _swin), _pixels),
    "swin_v2": (_model("Swinv2ForImageClassification", "Swinv2Config", _swin), _pixels),
    "beit": (_model("BeitForImageClassification", "BeitConfig", VIT | {"use_relative_position_bias": True}), _pixels),
    "beit_shared": (_model("BeitModel", "BeitConfig", VIT | {"use_shared_relative_position_bias": True}), _pixels),
    "dinov2": (_model("Dinov2ForImageClassification", "Dinov2Config", VIT), _pixels),
    "convnext": (_model("ConvNextForImageClassification", "ConvNextConfig", _convnext), partial(_pixels, 64)),
    "convnext_v2": (_model("ConvNextV2ForImageClassification", "ConvNextV2Config", _convnext), partial(_pixels, 64)),
    "resnet": (_model("ResNetForImageClassification", "ResNetConfig", _resnet), _pixels),
    "regnet": (_model("RegNetForImageClassification", "RegNetConfig", _regnet), _pixels),
    "mobilenet_v2": (_model("MobileNetV2ForImageClassification", "MobileNetV2Config", {"num_labels": 7}),
                     partial(_pixels, 64)),
    "mobilevit": (_model("MobileViTForImageClassification", "MobileViTConfig", _mobilevit), partial(_pixels, 64)),
    "segformer": (_model("SegformerForSemanticSegmentation", "SegformerConfig", _segformer), partial(_pixels, 64)),
    "segformer_classifier": (_model("SegformerForImageClassification", "SegformerConfig", _segformer),
                             partial(_pixels, 64)),
    "whisper": (_model("WhisperForConditionalGeneration", "WhisperConfig", WHISPER), _whisper),
    "whisper_eager": (_model("WhisperModel", "WhisperConfig", WHISPER, "eager"), _whisper),
    "wav2vec2": (_model("Wav2Vec2ForCTC", "Wav2Vec2Config", WAV), _sound),
    "wav2vec2_stable": (
        _model("Wav2Vec2Model", "Wav2Vec2Config", WAV | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}),
        _sound,
    ),
    "clip": (_model("CLIPModel", "CLIPConfig", _clip_options), _clip),
    "clip_vision": (_model("CLIPVisionModel", "CLIPVisionConfig", VIT), _pixels),
    "clip_text": (_model("CLIPTextModel", "CLIPTextConfig", CLIP_TEXT), _masked),
}  # fmt: skip
