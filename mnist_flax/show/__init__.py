"""What a person sees of a run: console, notebook, terminal drawings, figures, views of its rows."""
