"""Published models: their sizes, each with its source, and the numbers that were printed."""

from moe_np.accounting.architectures import LstmMoe, Transformer


def _shazeer(total, operations, *experts, note="", **sizes):
    published = {"total": f"{total}M", "operations": f"{operations}M"}
    return LstmMoe(*experts, **sizes, published=published, note=note)


T5_BASE = {
    # published config: 32,000 pieces and 100 sentinels, padded to a multiple of 128
    "vocab": 32128,
    # Raffel et al. 2020 (arXiv 1910.10683), sections 2.1 and 3.1.1, and all that follows
    "d_model": 768,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "heads": 12,
    "kv_heads": 12,
    "d_head": 64,
    "d_ff": 3072,
    "gated": False,  # ReLU
    "tied": True,
    "position_buckets": 32,
}

MODELS: dict[str, Transformer | LstmMoe] = {
    "mixtral-8x7b": Transformer(
        vocab=32000,  # Jiang et al. 2024 (arXiv 2401.04088), table 1, and all that follows
        d_model=4096,
        decoder_layers=32,
        heads=32,
        kv_heads=8,
        d_head=128,
        d_ff=0,  # no dense layer
        gated=True,
        tied=False,  # published weights
        moe_layers=32,
        experts=8,
        k=2,
        d_expert=14336,
        gated_experts=True,  # SwiGLU, section 2.1
        published={"total": "46.7B", "active": "12.9B"},
    ),
    "t5-base": Transformer(**T5_BASE, published={"total": "223M"}),
    "switch-base": Transformer(
        **T5_BASE,
        moe_layers=12,  # every other layer (Fedus et al. 2021, arXiv 2101.03961)
        experts=128,
        k=1,
        d_expert=3072,  # as the dense layers; config.json of the published google/switch-base-256
        # 7410M: table 8; "7.4B" in the text
        published={"total": "7410M"},
        note="the paper prints 7410M, and the parts that are counted here come to 7415M. Without "
        "the routers (1.18M), which the paper may have left out, they are 7414.04M, which has the "
        "three digits of 7410M; the paper does not say, so the difference is open",
    ),
    "glam-64b-64e": Transformer(
        vocab=256000,  # "256K", Du et al. 2021 (arXiv 2112.06905); the sizes that follow: table 4
        d_model=8192,
        decoder_layers=64,
        heads=128,
        kv_heads=128,
        d_head=128,
        d_ff=32768,
        gated=True,  # section 4: a gated linear unit with GELU in the layers without a mixture
        # not stated; a second matrix would make 98.7B active, and Praxis' layers/glam.py shares it
        tied=True,
        moe_layers=32,  # every other layer
        experts=64,
        k=2,
        d_expert=32768,
        gated_experts=False,
        norms=False,
        published={"total": "1.2T", "active": "96.6B"},
        note="norm scales (1.06M) and relative positions are left out: the paper does not give "
        "their sizes; its 180 GFLOP per token is 7 % less than twice the operations",
    ),
    "deepseekmoe-16b": Transformer(
        vocab=102400,  # published config
        d_model=2048,  # Dai et al. 2024 (arXiv 2401.06066), section 5, and what follows
        decoder_layers=28,
        heads=16,
        kv_heads=16,
        d_head=128,
        d_ff=10944,  # of the first layer, which has no mixture; published config
        gated=True,
        tied=False,
        moe_layers=27,
        experts=64,
        k=6,
        shared=2,
        d_expert=1408,  # published config
        gated_experts=True,
        published={"total": "16.4B", "active": "2.8B"},
    ),
    "grok-1": Transformer(
        vocab=131072,  # xAI 2024, github.com/xai-org/grok-1, run.py, and what follows
        d_model=6144,
        decoder_layers=64,
        heads=48,
        kv_heads=8,
        d_head=128,
        d_ff=0,  # no dense layer
        gated=True,
        tied=True,  # model.py: "in_out_embed"
        moe_layers=64,
        experts=8,
        k=2,
        d_expert=32768,  # model.py, ffn_size: two thirds of 8 times 6144
        gated_experts=True,  # model.py: linear and linear_v, then linear_1
        output_norms=True,  # model.py: four norms per layer
        published={"total": "314B"},
        note="314B is what the layers have, truncated (314.88B); the embedding has 0.81B more",
    ),
    # Shazeer et al. 2017 (arXiv 1701.06538), table 7; appendix C.1: d, cells, hidden, branching
    # factor 16
    "moe-4": _shazeer(8.4, 8.4, 4),
    "moe-32": _shazeer(37.8, 8.4, 32),
    "moe-256": _shazeer(
        272.9, 8.6, 256, note="operations come to 8.651M, which rounds to 8.7M and not to 8.6M"
    ),
    "moe-256-h": _shazeer(272.9, 8.4, 256, 16),
    "moe-1024-h": _shazeer("1079.0", 8.5, 1024, 16),
    "moe-4096-h": _shazeer(4303.4, 8.9, 4096, 16),
    # appendix C.2; the branching factor there is taken to be the one of C.1
    "moe-34m": _shazeer(4313.9, 33.8, 1024, 16, d=1024, cells=1024, hidden=2048),
    "moe-143m": _shazeer(4371.1, 142.7, 256, 16, d=1024, cells=4096, hidden=8192),
    # table 8; appendix D: branching factors
    "moe-256-h-news": _shazeer(272.9, 8.4, 256, 32),
    "moe-1024-h-news": _shazeer("1079.0", 8.5, 1024, 32),
    "moe-4096-h-news": _shazeer(4303.4, 8.6, 4096, 64),
    "moe-16384-h": _shazeer("17201.0", 8.8, 16384, 128),
    "moe-65536-h": _shazeer("68791.0", 9.2, 65536, 256),
    "moe-131072-h": _shazeer(137577.6, 9.7, 131072, 256),
}
