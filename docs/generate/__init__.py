"""What the site holds that is made from the program: run by ``mkdocs build`` (``mkdocs.yml``)."""
