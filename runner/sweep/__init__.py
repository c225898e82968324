"""One recipe with many values: jobs that share steps, written down before the first one starts.

expand.py     words and values -> the jobs' recipes
space.py      what jobs differ in: all values, or some that are drawn
checks.py     what is wrong with a sweep's settings
manifest.py   the jobs and their distinct steps, frozen in the sweep's folder
graph.py      which step may be made now, and which one next
search.py     jobs that are added one by one, as Optuna's study.py proposes them; pruned.py
standing.py   what the store says of every step and job
results.py    jobs.csv, jobs.parquet, the best job or the Pareto front
"""
