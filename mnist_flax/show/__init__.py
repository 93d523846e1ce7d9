"""What a person sees of a run: console, terminal drawings, figures, views of its rows."""
