"""One recipe with many values: jobs that share steps, written down before the first one starts.

expand.py     words and values -> the jobs' recipes
manifest.py   the jobs and their distinct steps, frozen in the sweep's folder
graph.py      which step may be made now, and which one next
standing.py   what the store says of every step and job
results.py    jobs.csv, jobs.parquet and the best job
"""
