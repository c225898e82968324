"""A recipe's every step, small: a random model of its architecture, 8 rows, the CPU, a minute."""
