"""A trained network out of its workdir: restored, evaluated, asked, looked into."""
