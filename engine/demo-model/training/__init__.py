"""How the demo model was made: text to a corpus, the corpus to chats, chats to tokens, tokens to weights. `train.py` runs the steps."""
