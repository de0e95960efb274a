"""The torch backend: a Llama-family decoder, its paged KV cache, swaps, and the execution of one iteration."""
