"""What several tools need: results, plots, files and what images are; it knows none of them."""
