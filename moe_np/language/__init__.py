"""Language models in a folder: train, evaluate and continue a text, from the command line or here.

corpus        the text, and what of it is held out
kinds         the models that `moe-np train --model` knows, with their values
run_folder    a training run that is stored in a folder and goes on after an interruption
run_state     what it needs to go on
folder_lock   one run in a folder at a time
run_progress  what is recorded of every update
run_pictures  its curves, and the load of its experts
model_files   a model in a folder
continuation  a text that a model continues, with the experts of every token
colours       these experts as colours, in a terminal and as a web page
evaluation    perplexity and bits per byte

    moe-np train runs/mixtral --model mixtral --minutes 5
    moe-np generate runs/mixtral --prompt "And God said" --experts
    moe-np evaluate runs/mixtral --text book.txt
"""
