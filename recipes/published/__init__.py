"""What others published on SUPERB and SUPERB-SG: numbers as data, each with its source."""
