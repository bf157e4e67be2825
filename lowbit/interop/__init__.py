"""Models of others in, and ours out: GGUF and safetensors."""
