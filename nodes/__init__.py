"""The ComfyUI nodes; the only package that imports ComfyUI, and only in `host` and the node classes."""
