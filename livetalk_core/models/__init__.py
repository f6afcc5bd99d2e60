"""Neural networks of LiveTalk as diffusers and transformers modules; import the submodule you need."""
