"""Speech: the formant frequencies of Peterson and Barney (1952), and the tasks made of them."""
