"""One file per backbone: where its attentions sit, what sizes it takes."""
