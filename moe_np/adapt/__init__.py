"""After training: a decoder is upcycled, gets and loses experts, is distilled, is fine-tuned.

Every function takes (config, params) and returns new ones; nothing is changed in place.

upcycling      dense to E experts (sparse upcycling)
adding         an expert behind a closed gate
removing       experts by their use, by the reconstruction loss of their layer, or at random
merging        experts into one, after their hidden units are aligned; a mixture to a dense layer
splitting      an expert into finer ones
distillation   the loss with soft targets of a teacher, and students to begin with
fine_tuning    what is trained and what is frozen, masked tokens, early stopping
low_rank       low-rank adapters (LoRA) on experts
layer_parts    what these have in common
model_folder   a decoder of `moe-np train` or of Hugging Face, read and written back
adapted_run    distillation and fine-tuning in a folder, which go on after an interruption

    change                                  equal to the model before it
    upcycling, weights renormalised         yes, to rounding
    upcycling, weights not renormalised     no: each layer times its tokens' sum of weights
    upcycling, copies with noise or redrawn no
    adding behind a closed gate             yes, to rounding
    removing an expert that nothing chose   yes on these tokens, to rounding, weights renormalised
    merging copies with permuted units      yes, to rounding
    merging an upcycled model to dense      yes, to rounding: the dense model comes back
    splitting                               yes, to rounding
    low-rank adapters before training       yes, to the bit
    low-rank adapters, merged               yes, to the bit: it is how they are applied
    frozen leaves in training               yes, to the bit

    moe-np adapt upcycle runs/dense --out runs/upcycled --experts 8
"""
