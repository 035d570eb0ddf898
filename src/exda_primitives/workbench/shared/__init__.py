"""What several tools share: results, tables, plots, files and images. Nothing here imports a tool."""
