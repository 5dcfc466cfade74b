"""Foreign libraries, each alone in one file that imports it where it is used."""
